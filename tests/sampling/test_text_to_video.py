"""ModelScope's text-to-video model and I2VGen-XL against diffusers' pipelines, with tiny random networks."""

import functools
import importlib
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
import transformers  # noqa: E402
from PIL import Image  # noqa: E402

from tests.public_models import (  # noqa: E402
    BLOCKS_3D,
    DDIM,
    FRAMES,
    PROMPTS,
    SIZE,
    gaussian_noise,
    i2vgen_xl,
    modelscope,
    pictures,
    randomize,
    text_parts,
)
from videogen_jax.runtime.pillow_resize import apply_weights, pillow_weights  # noqa: E402
from videogen_jax.sampling.pipeline import VideoGenPipeline  # noqa: E402
from videogen_jax.sampling.recipe import Recipe  # noqa: E402
from videogen_jax.sampling.request import SamplingRequest  # noqa: E402
from videogen_jax.video_io import read_video  # noqa: E402
from videogen_jax.weights.public_parts import _central_square  # noqa: E402
from videogen_jax.weights.public_video import read_index  # noqa: E402

STEPS = 5
NOISE = gaussian_noise(2, FRAMES, 8, 16, 4)
TOLERANCE = 0.5 + 0.255  # of 255: rounding, and 1e-3


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The parts that the pipelines have in common."""
    return text_parts(tmp_path_factory.mktemp("tokenizer"), layers=3)


def saved(pipeline, folder):
    pipeline.save_pretrained(folder)
    return pipeline, folder, VideoGenPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def text_to_video(parts, tmp_path_factory):
    """diffusers' pipeline, the folder that it wrote, and ours."""
    return saved(modelscope(parts), tmp_path_factory.mktemp("modelscope"))


@pytest.fixture(scope="module")
def i2vgen(parts, tmp_path_factory):
    """As `text_to_video`."""
    return saved(i2vgen_xl(parts), tmp_path_factory.mktemp("i2vgen"))


def test_a_sentence_becomes_the_video_of_diffusers(text_to_video):
    theirs, _, pipeline = text_to_video
    ours = pipeline(PROMPTS, latents=NOISE, size=SIZE, num_frames=FRAMES, steps=STEPS, guidance_scale=6.0)
    expected = theirs(
        PROMPTS,
        *SIZE,
        num_frames=FRAMES,
        num_inference_steps=STEPS,
        guidance_scale=6.0,
        latents=torch.from_numpy(NOISE).movedim(-1, 1),
    ).frames
    assert ours.frames.shape == (2, FRAMES, *SIZE, 3)
    assert expected.std() > 0.05
    assert np.abs(expected[0] - expected[1]).mean() > 0.02
    assert np.abs(ours.frames - 255.0 * expected).max() <= TOLERANCE
    np.testing.assert_array_equal(ours.reference, ours.frames[:, 0])  # there is no other


def test_an_image_and_a_sentence_become_the_video_of_diffusers(i2vgen, monkeypatch):
    theirs, _, pipeline = i2vgen
    images = pictures(SIZE)
    ours = pipeline(
        PROMPTS,
        reference=images,
        latents=NOISE,
        size=SIZE,
        num_frames=FRAMES,
        steps=STEPS,
        guidance_scale=4.0,
        conditioning_fps=10,
    )
    kind = diffusers.models.autoencoders.vae.DiagonalGaussianDistribution
    monkeypatch.setattr(kind, "sample", lambda self, generator=None: self.mean)  # theirs has no seed
    # Where their pipeline looks for the final layer norm, which newer releases of transformers have moved.
    monkeypatch.setattr(transformers.CLIPTextModel, "text_model", property(lambda self: self), raising=False)
    expected = [  # one by one, since their batches take one image
        theirs(
            prompt,
            Image.fromarray(image),
            *SIZE,
            target_fps=10,
            num_frames=FRAMES,
            num_inference_steps=STEPS,
            guidance_scale=4.0,
            latents=torch.from_numpy(noise[None]).movedim(-1, 1),
            output_type="np",
        ).frames[0]
        for prompt, image, noise in zip(PROMPTS, images, NOISE, strict=True)
    ]
    expected = np.stack(expected)
    assert expected.std() > 0.05
    assert np.abs(expected[0] - expected[1]).mean() > 0.02
    assert np.abs(ours.frames - 255.0 * expected).max() <= TOLERANCE


@pytest.mark.parametrize("change", ["text", "embedding", "fps"])
def test_each_condition_of_i2vgen_xl_matters(i2vgen, change):
    """The tolerance would notice the state of the last layer, another image in CLIP, and another frame rate."""
    _, _, pipeline = i2vgen
    settings = {"latents": NOISE[:1], "size": SIZE, "num_frames": FRAMES, "steps": STEPS, "guidance_scale": 4.0}
    image = pictures(SIZE)[0]
    before = pipeline(PROMPTS[0], reference=image, conditioning_fps=10, **settings).frames
    changed = {"text": PROMPTS[1], "embedding": PROMPTS[0], "fps": PROMPTS[0]}[change]
    if change == "embedding":
        image = image.copy()
        image[:, 80:] = 255 - image[:, 80:]
    after = pipeline(changed, reference=image, conditioning_fps=20 if change == "fps" else 10, **settings).frames
    assert np.abs(after.astype(float) - before).max() > 4 * TOLERANCE


@pytest.fixture(scope="module")
def enlarging(parts, text_to_video, tmp_path_factory):
    """diffusers' pipeline that makes a video larger, and ours with it above the other one."""
    torch.manual_seed(3)
    theirs = diffusers.VideoToVideoSDPipeline(
        unet=randomize(diffusers.UNet3DConditionModel(**BLOCKS_3D)),
        scheduler=diffusers.DDIMScheduler(**DDIM, beta_schedule="scaled_linear", set_alpha_to_one=False),
        **parts,
    )
    folder = tmp_path_factory.mktemp("zeroscope_xl")
    theirs.set_progress_bar_config(disable=True)
    theirs.save_pretrained(folder)
    return theirs, folder, VideoGenPipeline.from_pretrained(text_to_video[1], upper_model=folder)


def test_a_video_is_made_larger_as_in_diffusers(enlarging, text_to_video, monkeypatch):
    theirs, _, pipeline = enlarging
    size, lower_size = (64, 128), (32, 64)
    noise = {"video": gaussian_noise(2, FRAMES, 4, 8, 4), "upper": NOISE}
    settings = {"steps": STEPS, "guidance_scale": {"video": 6.0, "upper": 3.0}, "strength": 0.6}
    seen = {}
    ours = pipeline(
        PROMPTS,
        latents=noise,
        size=size,
        num_frames=FRAMES,
        callback=lambda stage, step, of, preview: seen.update({stage: (of, preview)}),
        previews=True,
        **settings,
    )
    assert ours.frames.shape == (2, FRAMES, *size, 3)
    assert (seen["video"][0], seen["upper"][0]) == (5, 3)
    lower = seen["video"][1]
    alone = text_to_video[2](
        PROMPTS, latents=noise["video"], size=lower_size, num_frames=FRAMES, steps=STEPS, guidance_scale=6.0
    )
    assert np.abs(lower.astype(int) - alone.frames).max() <= 1  # decoded one by one, and eight at once

    kind = diffusers.models.autoencoders.vae.DiagonalGaussianDistribution
    monkeypatch.setattr(kind, "sample", lambda self, generator=None: self.mean)  # a little noise
    module = "diffusers.pipelines.deprecated.text_to_video_synthesis.pipeline_text_to_video_synth_img2img"
    for prompt, frames, own, start in zip(PROMPTS, ours.frames, lower, NOISE, strict=True):
        monkeypatch.setattr(f"{module}.randn_tensor", lambda *_, x=start, **__: torch.from_numpy(x).movedim(-1, 1))
        enlarged = [Image.fromarray(frame).resize(size[::-1], Image.Resampling.BICUBIC) for frame in own]
        (expected,) = theirs(
            prompt, enlarged, strength=0.6, num_inference_steps=STEPS, guidance_scale=3.0, output_type="np"
        ).frames
        assert expected.std() > 0.05
        assert np.abs(frames - 255.0 * expected).max() <= TOLERANCE


def test_what_an_upper_model_may_be(enlarging, text_to_video, i2vgen, tiny_model):
    _, folder, pipeline = enlarging
    assert pipeline.index.size == (576, 1024)
    assert pipeline.noise_shape(0, 1, 24, (576, 1024)) == (1, 24, 40, 72, 4)  # 320x576 pixels
    assert pipeline.noise_shape(1, 1, 24, (576, 1024)) == (1, 24, 72, 128, 4)
    recipe = Recipe.from_json(pipeline._recipe(*_resolved(pipeline), 0).to_json())
    assert recipe.components == {"upper_model": str(folder)}
    upper = recipe.request.stages["upper"]
    assert (upper.strength, upper.guidance_scale) == (0.6, 15.0)
    assert pipeline.index.folders == (text_to_video[1], folder)  # both make the fingerprint
    with pytest.raises(ValueError, match=r"strength is 0.001, but of 50 steps that leaves none"):
        pipeline(PROMPTS, size=SIZE, strength=0.001)
    with pytest.raises(ValueError, match=r"strength is 1.5, but must be above 0 and at most 1"):
        pipeline(PROMPTS, size=SIZE, strength=1.5)
    with pytest.raises(ValueError, match="strength is not a setting of this model"):
        text_to_video[2](PROMPTS, size=SIZE, strength=0.5)
    with pytest.raises(ValueError, match=r"describes a I2VGenXLPipeline, but an upper_model is a TextToVideoSDPipe"):
        VideoGenPipeline.from_pretrained(text_to_video[1], upper_model=i2vgen[1])
    with pytest.raises(ValueError, match="takes no upper_model: only a model that makes videos of text alone does"):
        VideoGenPipeline.from_pretrained(tiny_model, upper_model=folder)


def _resolved(pipeline):
    request = SamplingRequest.from_keywords(PROMPTS[0], size=SIZE).resolve(pipeline.index)
    return request, pipeline.inputs(request)


def test_what_their_folders_say(text_to_video, i2vgen):
    index = read_index(text_to_video[1])
    assert (index.size, index.num_frames, index.fps, index.size_multiple) == ((256, 256), 16, 8.0, 16)
    assert (index.stages, index.settings_of("video")) == (("video",), ("guidance_scale", "steps", "sampler"))
    assert (index.stage_settings["video"].sampler, index.stage_settings["video"].guidance_scale) == ("ddim", 9.0)
    index = read_index(i2vgen[1])
    assert (index.size, index.fps, index.stage_settings["video"].conditioning_fps) == ((704, 1280), 16.0, 16.0)
    assert index.stages == ("reference", "video")


def test_the_command_makes_a_video_of_a_sentence(text_to_video, tmp_path, run_command):
    run = functools.partial(run_command, "videogen_jax.sample", cwd=tmp_path)
    settings = ("--size=64x128", "--frames=5", "--steps=1", "--output=video.mp4")
    done = run(f"--model={text_to_video[1]}", "--prompt", PROMPTS[0], *settings, VIDEOGEN_JAX_CACHE="off")
    assert (done.returncode, done.stdout.split()) == (0, ["video.mp4", "video.png"]), done.stderr
    frames, fps = read_video(tmp_path / "video.mp4")
    assert (frames.shape, fps) == ((5, *SIZE, 3), 8.0)
    assert Recipe.read(tmp_path / "video.mp4").request.prompts == (PROMPTS[0],)
    done = run("--recipe=video.mp4", "--output=again.mp4", VIDEOGEN_JAX_CACHE="off")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "video.mp4").read_bytes()


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("text_to_video", {"reference": pictures(SIZE)[0]}, "has no use for a reference image"),
        ("text_to_video", {"prompts": None}, "there are no prompts"),
        ("text_to_video", {"size": (64, 120)}, "size is 64x120, but .* multiples of 16"),
        ("text_to_video", {"num_frames": 1}, "num_frames is 1, but the model makes 2 to 1000"),
        ("text_to_video", {"motion_bucket_id": 3}, "motion_bucket_id is not a setting of this model"),
        ("i2vgen", {}, "the model animates an image: give one as the reference, or a reference_model"),
        ("i2vgen", {"reference": pictures(SIZE)[0], "conditioning_fps": 0}, "conditioning_fps is 0, but .* at least 1"),
        ("i2vgen", {"reference": pictures(SIZE)[0], "prompts": ""}, "a prompt must be a string that is not empty"),
    ],
)
def test_what_cannot_work_is_refused_before_compiling(request, compilations, kind, arguments, message):
    pipeline = request.getfixturevalue(kind)[2]
    compilations.clear()
    with pytest.raises(ValueError, match=message):
        pipeline(**{"prompts": PROMPTS[0], "size": SIZE, **arguments})
    assert not compilations


def test_a_model_of_text_alone_takes_no_reference_model(text_to_video, tiny_model):
    with pytest.raises(ValueError, match="makes videos of text alone: it has no use for a reference_model"):
        VideoGenPipeline.from_pretrained(text_to_video[1], reference_model=tiny_model)


def test_a_text_encoder_of_another_width_is_named(i2vgen, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for part in i2vgen[1].iterdir():
        (folder / part.name).symlink_to(part)
    (folder / "unet").unlink()
    (folder / "unet").mkdir()
    config = json.loads((i2vgen[1] / "unet" / "config.json").read_text()) | {"cross_attention_dim": 32}
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"unet/config.json: the UNet attends to states of width 32, but .* 24 wide"):
        VideoGenPipeline.from_pretrained(folder)


@pytest.mark.parametrize("size", [(704, 1280), (64, 128), (90, 70)])
def test_the_central_square_is_that_of_diffusers(size):
    """On a textured image, which tells the filters apart; at 704x1280 their division of floats is one row short."""
    height, width = size
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    module = importlib.import_module("diffusers.pipelines.deprecated.i2vgen_xl.pipeline_i2vgen_xl")
    expected = np.asarray(module._center_crop_wide(Image.fromarray(image), (width, width))).astype(np.float32)
    found = np.asarray(apply_weights(image.astype(np.float32), *_central_square(height, width)))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("box", Image.Resampling.BOX), ("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)],
)
@pytest.mark.parametrize(("size", "to"), [((45, 70), (31, 20)), ((20, 33), (50, 66)), ((704, 1280), (224, 224))])
def test_pillows_filters(name, theirs, size, to):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(to[::-1], theirs)).astype(np.float32)
    rows, columns = (pillow_weights(n, m, name) for n, m in zip(size, to, strict=True))
    difference = np.abs(np.asarray(apply_weights(image.astype(np.float32), rows, columns)) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.05  # halves go either way
