"""Public video models fine-tuned on prepared clips, written back, and as the start of the cascade; tiny and random."""

import dataclasses
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
from configs.public import cascade as cascade_config  # noqa: E402
from configs.webvid import prepare  # noqa: E402
from tests import public_models as public  # noqa: E402
from tests.data.synthetic_videos import make_corpus  # noqa: E402
from videogen_jax.data.preparing import prepare_from  # noqa: E402
from videogen_jax.sampling.pipeline import VideoGenPipeline  # noqa: E402
from videogen_jax.stages.stage import InputSizes  # noqa: E402
from videogen_jax.training.build import init_from, stage_of  # noqa: E402
from videogen_jax.training.exporting import Export, export_stage  # noqa: E402
from videogen_jax.training.run import run  # noqa: E402

pytestmark = pytest.mark.usefixtures("drawn_by_numpy")
SIDE, FRAMES, LENGTH, WIDTH = 8, 5, public.LENGTH, public.WIDTH
UNET = {
    "block_out_channels": public.WIDTHS,
    "layers_per_block": 1,
    "cross_attention": (True, False),
    "cross_attention_dim": WIDTH,
    "remat": False,
}
UNETS = {
    "svd": {**UNET, "num_heads": (2, 4), "added_numbers_dim": 8, "down_norm_eps": (1e-6, 1e-5)},
    "modelscope": {**UNET, "num_heads": (4, 8)},
    "i2vgen_xl": {**UNET, "num_heads": (4, 8)},
    "animatediff": {**UNET, "num_heads": 4, "motion_max_frames": 10},
    "animatediff:pia=1": {**UNET, "num_heads": 4, "motion_max_frames": 10},
}
CLASSES = {
    "svd": diffusers.UNetSpatioTemporalConditionModel,
    "modelscope": diffusers.UNet3DConditionModel,
    "i2vgen_xl": diffusers.I2VGenXLUNet,
}


@dataclasses.dataclass
class Models:
    """Folders of tiny models by the names of configs, their pipelines, and adapters for Stable Diffusion."""

    folders: dict
    pipelines: dict
    adapters: dict


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    parts = public.text_parts(tmp_path_factory.mktemp("tokenizer"), layers=3)
    pipelines = {
        "svd": public.stable_video_diffusion(),
        "modelscope": public.modelscope(parts),
        "i2vgen_xl": public.i2vgen_xl(parts),
        "animatediff": public.stable_diffusion(parts),
    }
    adapters = {
        "animatediff": public.motion_adapter(2, use_motion_mid_block=False),
        "animatediff:pia=1": public.motion_adapter(4, use_motion_mid_block=False, conv_in_channels=9),
    }
    root = tmp_path_factory.mktemp("models")
    for name, pipeline in (*pipelines.items(), *((f"{name}-adapter", x) for name, x in adapters.items())):
        pipeline.save_pretrained(root / name)
    folders = {name: root / name for name in pipelines}
    return Models(folders, pipelines, {name: (adapter, root / f"{name}-adapter") for name, adapter in adapters.items()})


def tiny(name, models):
    """A config of configs/public, for the tiny model."""
    file, _, argument = name.partition(":")
    config = importlib.import_module(f"configs.public.{file}").get_config(argument)
    config.model.unet.update(UNETS[name])
    config.model.resolution = SIDE
    config.model_folder = str(models.folders[file])
    config.motion_adapter = str(models.adapters[name][1]) if name in models.adapters else ""
    return config


def batch_of(stage, seed=0):
    """A batch of two random examples."""
    sizes = InputSizes(FRAMES, SIDE, 4, LENGTH)
    batch = {
        name: public.gaussian_noise(2, *x.shape, seed=seed + number)
        for number, (name, x) in enumerate(stage.input_spec(sizes).items())
    }
    if "noise_aug_strength" in batch:
        batch["noise_aug_strength"] = np.float32([0.02, 0.1])
    if "fps" in batch:
        batch["fps"] = np.float32([7, 12])
    return batch


def warm_started(config, stage):
    """The parameters that training starts from."""
    fresh = jax.eval_shape(stage.init, jax.random.key(0), batch_of(stage))
    fresh = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), fresh)
    model = init_from(config)
    return stage.warm_start(fresh, model, model)


def plain(value):
    """A tuple as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def channels(x, to):
    """The last axis of a NumPy array brought to place `to`, as a PyTorch tensor."""
    return torch.from_numpy(np.moveaxis(np.asarray(x), -1, to).copy())


# One loss, by PyTorch.


def losses(stage, params, batch, seed=3):
    """The loss without anything dropped, and what the network was called with: x_t, t, conditioning."""
    seen = {}

    class Seeing(type(stage)):
        def outputs(self, params, x_t, t, conditioning):
            seen.update(x_t=x_t, t=t, conditioning=conditioning)
            return super().outputs(params, x_t, t, conditioning)

    stage = Seeing(**{field.name: getattr(stage, field.name) for field in dataclasses.fields(stage) if field.init})
    frozen = {"null_context": jnp.zeros((LENGTH, WIDTH))}

    @jax.jit
    def run_once(params, batch):
        return stage.loss(params, frozen, batch, jax.random.key(seed))[0], seen

    loss, inputs = run_once(params, batch)
    return float(loss), inputs


def test_stable_video_diffusions_loss_is_that_of_edm(models):
    config = tiny("svd", models)
    config.model.reference_dropout = 0.0
    stage = stage_of(config)
    batch = batch_of(stage)
    loss, seen = losses(stage, warm_started(config, stage), batch)
    sigma = np.exp(4.0 * np.asarray(seen["t"], np.float64)).astype(np.float32)
    level = torch.from_numpy(sigma)[:, None, None, None, None]
    clean, x_t = channels(batch["latents"], 2), channels(seen["x_t"], 2)
    noisy = x_t * (level**2 + 1) ** 0.5  # clean + sigma noise
    numbers = np.stack([batch["fps"] - 1, np.float32([127, 127]), batch["noise_aug_strength"]], axis=1)
    image = channels(batch["image_latents"], 2).expand(-1, FRAMES, -1, -1, -1)
    with torch.no_grad():
        output = (
            models.pipelines["svd"]
            .unet(
                torch.cat([noisy / (level**2 + 1) ** 0.5, image], dim=2),
                torch.from_numpy(0.25 * np.log(sigma)),
                torch.from_numpy(batch["embedding"][:, None]),
                torch.from_numpy(numbers),
            )
            .sample
        )
    # Karras et al. 2022, eq. 7 and 8, with the preconditioning and the weight of Stable Video Diffusion.
    denoised = noisy / (level**2 + 1) - level / (level**2 + 1) ** 0.5 * output
    expected = ((level**2 + 1) / level**2 * (denoised - clean) ** 2).mean().item()
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["modelscope", "i2vgen_xl", "animatediff", "animatediff:pia=1"])
def test_the_other_losses_are_those_of_their_schedulers(models, name):
    config = tiny(name, models)
    config.model.text_dropout = 0.0
    if name == "i2vgen_xl":
        config.model.reference_dropout = 0.0
    if name in models.adapters:
        config.model.unet.motion_norm = "video"  # as in diffusers
    stage = stage_of(config)
    batch = batch_of(stage)
    loss, seen = losses(stage, warm_started(config, stage), batch)
    file = name.partition(":")[0]
    theirs = models.pipelines[file].unet
    if name in models.adapters:
        theirs = diffusers.UNetMotionModel.from_unet2d(theirs, models.adapters[name][0])
    scheduler = {
        "modelscope": models.pipelines["modelscope"].scheduler,
        "i2vgen_xl": models.pipelines["i2vgen_xl"].scheduler,
    }.get(name, diffusers.DDIMScheduler(**public.DDIM, beta_schedule="linear"))
    clean, x_t, t = channels(batch["latents"], 1), channels(seen["x_t"], 1), torch.from_numpy(np.array(seen["t"]))
    alpha_bar = scheduler.alphas_cumprod[t].reshape(2, 1, 1, 1, 1)
    noise = (x_t - alpha_bar**0.5 * clean) / (1 - alpha_bar) ** 0.5
    context = torch.from_numpy(batch["context"])
    arguments = (x_t, t)
    if name == "i2vgen_xl":
        places = np.arange(1, FRAMES).reshape(1, -1, 1, 1, 1) / (FRAMES - 1)
        image = np.concatenate([batch["latents"][:, :1], np.broadcast_to(places, (2, FRAMES - 1, SIDE, SIDE, 4))], 1)
        image = channels(image.astype(np.float32), 1)
        arguments += (torch.from_numpy(batch["fps"]), image, torch.from_numpy(batch["embedding"]), context)
    elif name in models.adapters:
        if name.endswith("pia=1"):
            mask = np.float32([1, 0.8, 0.8, 0.8, 0.79]).reshape(1, 1, -1, 1, 1)
            mask = torch.from_numpy(np.broadcast_to(mask, (2, 1, FRAMES, SIDE, SIDE)).copy())
            arguments = (torch.cat([x_t, mask, clean[:, :, :1].expand(-1, -1, FRAMES, -1, -1)], dim=1), t)
        arguments += (context.repeat_interleave(FRAMES, 0),)
    else:
        arguments += (context,)
    with torch.no_grad():
        output = theirs.eval()(*arguments).sample
    velocity = alpha_bar**0.5 * noise - (1 - alpha_bar) ** 0.5 * clean
    target = velocity if name == "i2vgen_xl" else noise
    assert loss == pytest.approx(((output - target) ** 2).mean().item(), rel=1e-4)


# There and back.


@pytest.mark.parametrize("name", UNETS)
def test_a_model_is_written_back_as_it_was(models, name, tmp_path):
    config = tiny(name, models)
    config.data.resolution = SIDE
    stage = stage_of(config)
    stage.export(warm_started(config, stage), Export(config, stage, tmp_path, "float32", False))
    if name in models.adapters:
        adapter, before = diffusers.MotionAdapter.from_pretrained(tmp_path / "motion_adapter"), models.adapters[name][0]
        state, expected = adapter.state_dict(), before.state_dict()
        if "conv_in.weight" in expected:  # of which diffusers takes the image's channels alone
            unet = models.pipelines["animatediff"].unet.conv_in
            expected["conv_in.weight"] = torch.cat([unet.weight, expected["conv_in.weight"][:, 4:]], dim=1)
            expected["conv_in.bias"] = unet.bias
        assert all(adapter.config[field] == plain(value) for field, value in before.config.items() if field[0] != "_")
    else:
        pipeline = type(models.pipelines[name]).from_pretrained(tmp_path)  # a whole model
        again, before = pipeline.unet, models.pipelines[name].unet
        assert isinstance(again, CLASSES[name])
        state, expected = again.state_dict(), before.state_dict()
        for field in ("_class_name", "block_out_channels", "down_block_types", "cross_attention_dim", "in_channels"):
            assert again.config[field] == plain(before.config[field]), field
        VideoGenPipeline.from_pretrained(tmp_path)
    assert state.keys() == expected.keys()
    for key, tensor in expected.items():
        exact = {"rtol": 0, "atol": 1e-6 if key.endswith("pos_embed.pe") else 0}
        torch.testing.assert_close(state[key], tensor, **exact, msg=key)


# Three steps on clips that were prepared with the public model.


@pytest.fixture(scope="module")
def prepared(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    videos = make_corpus(folder, count=4, faulty=0)
    lines = [json.dumps({"file": video.path.name, "caption": public.PROMPTS[k % 2]}) for k, video in enumerate(videos)]
    (folder / "captions.jsonl").write_text("\n".join(lines))
    config = prepare.get_config("corpus=folder")
    config.corpus.folder, config.corpus.captions = str(folder / "videos"), str(folder / "captions.jsonl")
    config.model_folder = str(models.folders["modelscope"])
    config.data_dir = str(tmp_path_factory.mktemp("data"))
    config.resolutions = (SIDE,)
    config.clips.num_frames, config.clips.min_motion, config.clips.cut_threshold = FRAMES, 0.0, 255.0
    config.num_workers = 1
    prepare_from(config)
    return f"{config.data_dir}/webvid/1.0.0"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in ("modelscope", "i2vgen_xl") else []) for name in UNETS],
)
def test_three_steps(models, prepared, name, tmp_path):
    config = tiny(name, models)
    config.init_from = config.motion_adapter = ""
    one_level = {"block_out_channels": (16,), "cross_attention": (False,), "num_heads": 2, "norm_num_groups": 4}
    config.model.unet.update(one_level)  # the middle has transformers
    if name == "svd":
        config.model.unet.down_norm_eps = 1e-6
    config.data.folder = str(prepared)
    config.data.resolution = SIDE
    config.steps, config.batch_size, config.log_every, config.sample_count = 3, 2, 1, 1
    config.model.preview_steps = 1
    config.optimizer.warmup_steps = 0
    config.optimizer.learning_rate = 1e-3
    state = jax.device_get(run(config, tmp_path / "run"))
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite([record["loss"] for record in records]).all()
    moved = jax.tree.map(lambda mean, new: bool(np.any(mean != new)), state.ema, state.params)
    for path, has_moved in jax.tree.leaves_with_path(moved):
        path = jax.tree_util.keystr(path)
        if name in models.adapters:
            assert has_moved <= ("motion_modules" in path), path
    assert any(jax.tree.leaves(moved))
    written = export_stage(config, tmp_path / "run", tmp_path / "model", dtype="float32")
    assert [folder.name for folder in written] == ["motion_adapter" if name in models.adapters else "unet"]


# The cascade from them.


def cascade_from(models, name):
    config = cascade_config.get_config()
    file = name.partition(":")[0]
    config.model_folder = str(models.folders["modelscope"])
    config.init_from = str(models.folders[file])
    config.motion_adapter = str(models.adapters[name][1]) if name in models.adapters else ""
    config.model.resolution = SIDE
    config.model.unet.remat = False
    if name in models.adapters:
        config.model.unet.motion_norm = "video"
    stage = stage_of(config)
    return stage, warm_started(config, stage)


@pytest.mark.parametrize("name", UNETS)
def test_a_stage_of_the_cascade_starts_as_the_public_network(models, name):
    stage, params = cascade_from(models, name)
    kinds = {"svd": "spatio_temporal", "modelscope": "temporal_transformer", "i2vgen_xl": "temporal_transformer"}
    assert stage.network.temporal == kinds.get(name, "motion_module")
    if name == "i2vgen_xl":  # whose other inputs have no place here
        kernel = np.asarray(params[stage.name]["conv_in"]["kernel"])
        expected = models.pipelines[name].unet.conv_in.weight.detach().numpy().transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(kernel[:, :, :4], expected[:, :, :4])
        assert not kernel[:, :, 4:].any()
        return
    noise = public.gaussian_noise
    x, reference, context = noise(2, FRAMES, SIDE, SIDE, 4), noise(2, 1, SIDE, SIDE, 4, seed=4), noise(2, 3, WIDTH)
    t = np.float32([7, 900])
    context = context[:, :1] if name == "svd" else context
    joined = stage.unet_input(x, reference, np.ones(2, np.float32), None)
    found = np.asarray(jax.jit(stage.predict)(params[stage.name], joined, t, context))
    frames, text = torch.from_numpy(t), torch.from_numpy(context)
    with torch.no_grad():
        if name == "svd":
            theirs = models.pipelines["svd"].unet
            saved = {key: value.clone() for key, value in theirs.add_embedding.state_dict().items()}
            for parameter in theirs.add_embedding.parameters():  # the cascade has no such numbers
                parameter.zero_()
            scale = models.pipelines["svd"].vae.config.scaling_factor
            image = np.broadcast_to(reference / scale, x.shape)
            output = theirs(channels(np.concatenate([x, image], -1), 2), frames, text, torch.zeros(2, 3)).sample
            theirs.add_embedding.load_state_dict(saved)
            expected = np.moveaxis(output.numpy(), 2, -1)
        else:
            theirs = models.pipelines[name.partition(":")[0]].unet
            if name in models.adapters:
                theirs = diffusers.UNetMotionModel.from_unet2d(theirs, models.adapters[name][0])
                text = text.repeat_interleave(FRAMES, 0)
            if name.endswith("pia=1"):
                x = np.concatenate([x, np.ones_like(x[..., :1]), np.broadcast_to(reference, x.shape)], -1)
            expected = np.moveaxis(theirs.eval()(channels(x, 1), frames, text).sample.numpy(), 1, -1)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
