"""AnimateDiff, also with Stable Diffusion XL, Lightning and PIA against diffusers' pipelines, with tiny networks."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
from PIL import Image  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from tests.public_models import (  # noqa: E402
    BLOCKS_2D,
    FRAMES,
    PROMPTS,
    SIZE,
    STABLE_DIFFUSION,
    gaussian_noise,
    image_autoencoder,
    motion_adapter,
    pictures,
    randomize,
    stable_diffusion,
    text_encoder,
    text_parts,
    tokenizer_in,
)
from videogen_jax.sampling.pipeline import VideoGenPipeline  # noqa: E402
from videogen_jax.sampling.recipe import Recipe  # noqa: E402
from videogen_jax.sampling.source import ModelSource  # noqa: E402
from videogen_jax.stages.pia import SIMILARITY  # noqa: E402
from videogen_jax.stages.settings import NUM_MOTION_SCALES  # noqa: E402
from videogen_jax.weights.naming import to_public  # noqa: E402
from videogen_jax.weights.public_video import read_index  # noqa: E402

STEPS = 5
NOISE = gaussian_noise(2, FRAMES, 8, 16, 4)
TOLERANCE = 0.5 + 0.255  # of 255: rounding, and 1e-3
AS_TRAINED = STABLE_DIFFUSION | {"beta_schedule": "linear", "steps_offset": 1}
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A Stable Diffusion pipeline and its folder."""
    pipeline = stable_diffusion(text_parts(tmp_path_factory.mktemp("tokenizer")))
    folder = tmp_path_factory.mktemp("images")
    pipeline.save_pretrained(folder)
    return pipeline, folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    adapter = motion_adapter(2, use_motion_mid_block=False)
    adapter.save_pretrained(folder)
    return adapter, folder


@pytest.fixture(scope="module")
def animated(images, adapter):
    """Ours, normalising as diffusers does."""
    return VideoGenPipeline.from_pretrained(images[1], motion_adapter=adapter[1], motion_norm="video")


def parts_of(pipeline, *names):
    names = names or ("vae", "text_encoder", "tokenizer")
    return {name: getattr(pipeline, name) for name in names}


def check(ours, expected):
    assert ours.shape == (2, FRAMES, *SIZE, 3)
    assert expected.std() > 0.05
    assert np.abs(expected[0] - expected[1]).mean() > 0.02
    assert np.abs(ours - 255.0 * expected).max() <= TOLERANCE


ASKED = {"latents": NOISE, "size": SIZE, "num_frames": FRAMES}
THEIRS = {"height": SIZE[0], "width": SIZE[1], "num_frames": FRAMES, "output_type": "np"}


def as_torch(noise):
    return torch.from_numpy(noise).movedim(-1, 1)


def test_a_sentence_becomes_the_video_of_diffusers(images, adapter, animated):
    ours = animated(PROMPTS, steps=STEPS, guidance_scale=6.0, **ASKED)
    theirs = diffusers.AnimateDiffPipeline(
        unet=images[0].unet,
        motion_adapter=adapter[0],
        scheduler=diffusers.DDIMScheduler(**AS_TRAINED, clip_sample=False, set_alpha_to_one=False),
        **parts_of(images[0]),
    )
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(PROMPTS, num_inference_steps=STEPS, guidance_scale=6.0, latents=as_torch(NOISE), **THEIRS)
    check(ours.frames, expected.frames)


def test_norms_of_frames_give_another_video(images, adapter, animated):
    trained = VideoGenPipeline.from_pretrained(images[1], motion_adapter=adapter[1])
    assert (trained.cascade[0].network.motion_norm, animated.cascade[0].network.motion_norm) == ("frame", "video")
    one = {**ASKED, "latents": NOISE[:1], "steps": 3}
    difference = trained(PROMPTS[0], **one).frames.astype(float) - animated(PROMPTS[0], **one).frames
    assert np.abs(difference).max() > 4 * TOLERANCE


def test_the_parameters_are_those_of_both_files(images, adapter, animated):
    """Every tensor, bit for bit; and the image model's are on the device once."""
    found = to_public(jax.device_get(animated.params["video"]))
    unet = load_file(images[1] / "unet" / WEIGHTS)
    motion = {name: x for name, x in load_file(adapter[1] / WEIGHTS).items() if not name.endswith("pos_embed.pe")}
    assert found.keys() == unet.keys() | motion.keys()
    for name, tensor in {**unet, **motion}.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_lightning_takes_as_many_steps_as_its_file_is_for(images, tmp_path):
    adapter = motion_adapter(3)  # with a middle block
    file = tmp_path / "animatediff_lightning_4step_diffusers.safetensors"
    save_file({name: x.numpy() for name, x in adapter.state_dict().items()}, file)
    pipeline = VideoGenPipeline.from_pretrained(images[1], motion_adapter=file, motion_norm="video")
    settings = pipeline.index.stage_settings["video"]
    assert (settings.steps, settings.sampler, settings.guidance_scale) == (4, "euler", 1.0)
    assert pipeline.cascade[0].passes(settings) == ("full",)
    assert pipeline.index.most_frames == 10
    ours = pipeline(PROMPTS, **ASKED)
    theirs = diffusers.AnimateDiffPipeline(
        unet=images[0].unet,
        motion_adapter=adapter,
        scheduler=diffusers.EulerDiscreteScheduler(**AS_TRAINED, timestep_spacing="trailing"),
        **parts_of(images[0]),
    )
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(PROMPTS, num_inference_steps=4, guidance_scale=1.0, latents=as_torch(NOISE), **THEIRS)
    check(ours.frames, expected.frames)


@pytest.fixture(scope="module")
def pia(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pia")
    adapter = motion_adapter(4, use_motion_mid_block=False, conv_in_channels=9)
    adapter.save_pretrained(folder)
    return adapter, VideoGenPipeline.from_pretrained(images[1], motion_adapter=folder, motion_norm="video")


def test_an_image_and_a_sentence_become_the_video_of_diffusers(images, pia, monkeypatch):
    adapter, pipeline = pia
    pictured = pictures(SIZE)
    ours = pipeline(PROMPTS, reference=pictured, steps=STEPS, guidance_scale=6.0, motion_scale=2, **ASKED)
    np.testing.assert_array_equal(ours.reference, pictured)
    theirs = diffusers.PIAPipeline(
        unet=images[0].unet,
        motion_adapter=adapter,
        scheduler=diffusers.DDIMScheduler(**AS_TRAINED, clip_sample=False, set_alpha_to_one=False),
        **parts_of(images[0]),
    )
    theirs.set_progress_bar_config(disable=True)
    kind = diffusers.models.autoencoders.vae.DiagonalGaussianDistribution
    monkeypatch.setattr(kind, "sample", lambda self, generator=None: self.mean)
    expected = [
        theirs(
            Image.fromarray(image),
            prompt,
            num_inference_steps=STEPS,
            guidance_scale=6.0,
            motion_scale=2,
            latents=as_torch(noise[None]),
            **THEIRS,
        ).frames[0]
        for image, prompt, noise in zip(pictured, PROMPTS, NOISE, strict=True)
    ]
    check(ours.frames, np.stack(expected))


def test_pia_draws_its_reference_with_the_same_unet(pia, images):
    _, pipeline = pia
    unet, video = (pipeline.params[name] for name in ("reference", "video"))
    assert (
        unet["unet"]["mid_block"]["resnets_0"]["conv1"]["kernel"] is video["mid_block"]["resnets_0"]["conv1"]["kernel"]
    )
    assert video["conv_in"]["kernel"].shape == (3, 3, 9, 32)
    steps = {"reference": 2, "video": 1}
    calls = []
    output = pipeline(PROMPTS[0], size=SIZE, num_frames=4, steps=steps, callback=lambda stage, *_: calls.append(stage))
    assert list(dict.fromkeys(calls)) == ["text", "reference", "video", "decode"]
    alone = VideoGenPipeline.from_pretrained(images[1], motion_adapter=pipeline.index.adapter.path, motion_norm="video")
    again = alone(PROMPTS[0], reference=output.reference[0], size=SIZE, num_frames=4, steps={"video": 1})
    np.testing.assert_array_equal(again.frames, output.frames)


@pytest.fixture(scope="module")
def sparse_control(tmp_path_factory):
    torch.manual_seed(6)
    control = diffusers.SparseControlNetModel(
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        block_out_channels=BLOCKS_2D["block_out_channels"],
        layers_per_block=1,
        cross_attention_dim=24,
        attention_head_dim=4,
        motion_max_seq_length=10,
        norm_num_groups=8,  # frames without a condition are flat: a group of one channel would have no variance
    )
    folder = tmp_path_factory.mktemp("sparse_control")
    randomize(control).save_pretrained(folder)
    return control, folder


@pytest.fixture(scope="module")
def controlled(images, adapter, sparse_control):
    components = {"motion_adapter": adapter[1], "motion_norm": "video", "sparse_control": sparse_control[1]}
    return VideoGenPipeline.from_pretrained(images[1], **components)


def test_sparse_control_gives_what_diffusers_gives(sparse_control, controlled):
    noise, t = gaussian_noise(2, FRAMES, 8, 16, 4), np.float32([7, 900])
    context, mask = gaussian_noise(2, 3, 24), np.float32(np.arange(FRAMES) == 2)
    condition = noise * mask[:, None, None, None]
    stage, params = controlled.cascade[0], controlled.params["video"]["control"]
    apply = jax.jit(stage.control_network.apply)
    skips, middle = apply({"params": params}, t, context, condition, mask)
    marks = np.broadcast_to(mask[:, None, None, None], (2, FRAMES, 8, 16, 1)).copy()
    with torch.no_grad():
        expected_skips, expected = sparse_control[0](
            as_torch(noise),  # which the network does not see
            torch.from_numpy(t),
            torch.from_numpy(context).repeat_interleave(FRAMES, 0),
            as_torch(condition),
            conditioning_mask=as_torch(marks),
            return_dict=False,
        )
    for found, theirs in zip((*skips, middle), (*expected_skips, expected), strict=True):
        theirs = theirs.movedim(1, -1).numpy()
        assert np.abs(found - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_a_reference_at_chosen_frames_is_that_of_diffusers(images, adapter, sparse_control, controlled, monkeypatch):
    pictured = pictures(SIZE)
    frames = {"reference_frames": (1, 5)}
    ours = controlled(PROMPTS, reference=pictured, steps=STEPS, guidance_scale=6.0, **frames, **ASKED)
    theirs = diffusers.AnimateDiffSparseControlNetPipeline(
        unet=images[0].unet,
        motion_adapter=adapter[0],
        controlnet=sparse_control[0],
        scheduler=diffusers.DDIMScheduler(**AS_TRAINED, clip_sample=False, set_alpha_to_one=False),
        **parts_of(images[0]),
    )
    theirs.set_progress_bar_config(disable=True)
    kind = diffusers.models.autoencoders.vae.DiagonalGaussianDistribution
    monkeypatch.setattr(kind, "sample", lambda self, generator=None: self.mean)
    expected = [
        theirs(
            prompt,
            num_inference_steps=STEPS,
            guidance_scale=6.0,
            conditioning_frames=[Image.fromarray(image)] * 2,
            controlnet_frame_indices=[1, 5],
            latents=as_torch(noise[None]),
            **THEIRS,
        ).frames[0]
        for image, prompt, noise in zip(pictured, PROMPTS, NOISE, strict=True)
    ]
    check(ours.frames, np.stack(expected))
    recipe = Recipe.from_json(ours.recipes[0].to_json())
    assert recipe.request.stages["video"].reference_frames == (1, 5)
    assert "sparse_control" in recipe.components


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ((0, 8), "reference_frames names frame 8, but the video has 8, from 0"),
        ((), r"reference_frames is \(\), but must be numbers of frames, from 0"),
        ((-1,), "must be numbers of frames, from 0"),
        ("1", "must be numbers of frames, from 0"),
    ],
)
def test_reference_frames_that_are_none(controlled, frames, message):
    with pytest.raises(ValueError, match=message):
        controlled(PROMPTS[0], reference=pictures(SIZE)[0], size=SIZE, num_frames=FRAMES, reference_frames=frames)


def test_similarities_are_the_authors():
    module = "diffusers.pipelines.deprecated.pia.pipeline_pia"
    coefficients = pytest.importorskip(module).prepare_mask_coef_by_statistics
    assert len(SIMILARITY) == NUM_MOTION_SCALES
    for scale, row in enumerate(SIMILARITY):
        expected = coefficients(20, 0, scale)
        np.testing.assert_array_equal([*row, *row[-1:] * (20 - len(row))], expected)


def test_stable_diffusion_xl_is_animated_as_in_diffusers(adapter, tmp_path):
    torch.manual_seed(5)
    tokenizer, vae = tokenizer_in(tmp_path / "tokenizer"), image_autoencoder()
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    unet = diffusers.UNet2DConditionModel(
        **BLOCKS_2D,
        **added,
        cross_attention_dim=40,
        attention_head_dim=(4, 8),
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=20 + 6 * 8,
    )
    images = diffusers.StableDiffusionXLPipeline(
        unet=randomize(unet),
        vae=vae,
        text_encoder=text_encoder(tokenizer),
        text_encoder_2=text_encoder(tokenizer, 16, projection=20),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        scheduler=diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION),
    )
    images.save_pretrained(tmp_path)
    pipeline = VideoGenPipeline.from_pretrained(tmp_path, motion_adapter=adapter[1], motion_norm="video")
    ours = pipeline(PROMPTS, steps=STEPS, guidance_scale=6.0, **ASKED)
    theirs = diffusers.AnimateDiffSDXLPipeline(
        unet=images.unet,
        motion_adapter=adapter[0],
        scheduler=diffusers.DDIMScheduler(**AS_TRAINED, clip_sample=False),
        **parts_of(images, "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
    )
    # Building a motion UNet of an image UNet, diffusers leaves this layer random.
    theirs.unet.add_embedding.load_state_dict(images.unet.add_embedding.state_dict())
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(PROMPTS, num_inference_steps=STEPS, guidance_scale=6.0, latents=as_torch(NOISE), **THEIRS)
    check(ours.frames, expected.frames)


def test_the_command_remakes_its_video(images, adapter, tmp_path, run_command):
    run = functools.partial(run_command, "videogen_jax.sample", cwd=tmp_path)
    model = (f"--model={images[1]}", f"--motion_adapter={adapter[1]}", "--motion_norm=video")
    done = run("--prompt", PROMPTS[0], *model, "--size=64x64", "--frames=4", "--steps=1", VIDEOGEN_JAX_CACHE="off")
    assert done.returncode == 0, done.stderr
    (video,) = tmp_path.glob("out/*.mp4")
    assert Recipe.read(video).components == {"motion_adapter": str(adapter[1]), "motion_norm": "video"}
    done = run(f"--recipe={video}", "--output=again.mp4", VIDEOGEN_JAX_CACHE="off")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.mp4").read_bytes() == video.read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"block_out_channels": [64, 128]},
            r"is for a UNet whose block_out_channels is \[64, 128\], but .* \[32, 64\]",
        ),
        ({"motion_layers_per_block": 2}, "is for a UNet whose layers_per_block is 2, but .* is 1"),
        ({"motion_num_attention_heads": 4}, "motion_num_attention_heads is 4; only 8 is supported"),
        ({"motion_max_seq_length": 12}, "with other positions than the network's"),
        (
            {"use_motion_mid_block": True},
            r"motion_adapter .*: the tensors do not fit the network: \d+ missing .*mid_block",
        ),
        ({"rotary": True}, r"the field rotary \(True\) is not supported"),
        ({"_class_name": "ControlNetModel"}, "describes a ControlNetModel, but a MotionAdapter is needed"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(images, adapter, tmp_path, changes, message):
    folder = tmp_path / "adapter"
    shutil.copytree(adapter[1], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=message):
        VideoGenPipeline.from_pretrained(images[1], motion_adapter=folder)


def test_what_does_not_go_with_an_adapter(images, adapter, animated, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="draws images; name it with --reference_model, or give it a --motion_adapter"):
        read_index(images[1])
    with pytest.raises(
        ValueError, match="describes a VideoGenPipeline, but a motion_adapter goes with StableDiffusion"
    ):
        ModelSource.find(tiny_model, motion_adapter=adapter[1])
    with pytest.raises(ValueError, match="motion_norm is 'video', but there is no motion_adapter"):
        ModelSource.find(tiny_model, motion_norm="video")
    with pytest.raises(ValueError, match="sparse_control is 'x', but there is no motion_adapter"):
        ModelSource.find(tiny_model, sparse_control="x")
    with pytest.raises(ValueError, match="motion_norm is 'clip', but must be frame or video"):
        ModelSource.find(images[1], motion_adapter=adapter[1], motion_norm="clip")
    (tmp_path / "mm.ckpt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"mm.ckpt is no safetensors file; pickles are not opened"):
        ModelSource.find(images[1], motion_adapter=tmp_path / "mm.ckpt")
    with pytest.raises(ValueError, match="num_frames is 11, but the model makes 2 to 10 frames"):
        animated(PROMPTS[0], size=SIZE, num_frames=11)
    with pytest.raises(ValueError, match="motion_scale is not a setting of this model"):
        animated(PROMPTS[0], size=SIZE, motion_scale=1)


def test_motion_scale_has_nine_values(pia):
    with pytest.raises(ValueError, match="motion_scale is 9, but must be a whole number from 0 to 8"):
        pia[1](PROMPTS[0], size=SIZE, motion_scale=9)
