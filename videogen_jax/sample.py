"""Make videos of sentences.

    python -m videogen_jax.sample --prompt "a small red circle moving right slowly on a gray background"

writes a video and a contact sheet under out/ and prints where. Any field of the config can be set from the command
line: `--config.cascade.steps=30`. A video holds what it was made from, and

    python -m videogen_jax.sample --recipe out/video.mp4

makes it again.

    python -m videogen_jax.sample --aot_topology v5e:2x2

makes nothing: it compiles the programs for that TPU pod on this machine and says what they need. With a training config
(configs/webvid) it is the sampling of that stage, for which there need be no weights.
"""

import functools
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from videogen_jax.runtime.command_line import configure_output, fail, parse_with_default, read_prompts

ROOT = Path(__file__).resolve().parent
DEFAULT_CONFIG = ROOT.parent / "configs" / "shapes" / "sample.py"

# Its default is put in by `_parse`: one given here would be read, with all fields set, before flags are parsed.
_CONFIG = config_flags.DEFINE_config_file("config", None, f"Sampling config; {DEFAULT_CONFIG} if not given")
_PROMPT = flags.DEFINE_string("prompt", None, "What the video shows")
_PROMPTS_FILE = flags.DEFINE_string("prompts_file", None, "A text file with one prompt on each line")
_RECIPE = flags.DEFINE_string(
    "recipe", None, "A video (.mp4, .webm, .gif, .png) that this command wrote, to make again"
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "A file ending .mp4, .gif, .webm or .png (a contact sheet), or a folder; out/ if not given"
)
_MODEL = flags.DEFINE_string("model", None, "Model folder or hub id; the embedded model if not given")
_REFERENCE_MODEL = flags.DEFINE_string(
    "reference_model", None, "A folder or hub id in diffusers' layout (Stable Diffusion) that draws the reference image"
)
_UPPER_MODEL = flags.DEFINE_string(
    "upper_model", None, "A folder or hub id of ZeroScope XL, which makes the videos of a model like ZeroScope larger"
)
_MOTION_ADAPTER = flags.DEFINE_string(
    "motion_adapter",
    None,
    "AnimateDiff's motion adapter for a --model that is Stable Diffusion: a folder, a hub id, or id:file.safetensors",
)
_MOTION_NORM = flags.DEFINE_string(
    "motion_norm", None, 'What motion modules normalise: "frame", as they were trained, or "video", as in diffusers'
)
_SPARSE_CONTROL = flags.DEFINE_string(
    "sparse_control", None, "SparseCtrl's network for RGB images, with a --motion_adapter: a folder or hub id"
)
_AOT = flags.DEFINE_string("aot", None, "A folder of programs that videogen_jax.export_sampler wrote, to start sooner")
_SEED = flags.DEFINE_integer("seed", None, "Seed of the random numbers, the same for every prompt")
_REFERENCE = flags.DEFINE_string("reference", None, "An image to take instead of drawing the reference image")
_FRAMES = flags.DEFINE_integer("frames", None, "Frames of the video")
_SIZE = flags.DEFINE_string("size", None, "Height x width in pixels, as 128x192, if not those of the model")
_FPS = flags.DEFINE_float("fps", None, "Frames a second at which the file is played")
_GUIDANCE_SCALE = flags.DEFINE_float("guidance_scale", None, "Weight of the text, in all stages")
_REFERENCE_GUIDANCE_SCALE = flags.DEFINE_float("reference_guidance_scale", None, "Weight of the reference image")
_STEPS = flags.DEFINE_integer("steps", None, "Sampling steps of every stage")
_MOTION_BUCKET_ID = flags.DEFINE_integer(
    "motion_bucket_id", None, "How much motion there is to be, 0 to 255 (Stable Video Diffusion)"
)
_NOISE_AUG_STRENGTH = flags.DEFINE_float(
    "noise_aug_strength", None, "How much noise the reference image gets (Stable Video Diffusion)"
)
_MIN_GUIDANCE_SCALE = flags.DEFINE_float(
    "min_guidance_scale", None, "Weight of guidance in the first frame (Stable Video Diffusion)"
)
_CONDITIONING_FPS = flags.DEFINE_float(
    "conditioning_fps", None, "Frames a second that the network is given (Stable Video Diffusion, I2VGen-XL)"
)
_MOTION_SCALE = flags.DEFINE_integer(
    "motion_scale", None, "How much motion there is to be, 0 to 2; 3 to 5 as a loop, 6 to 8 in another style (PIA)"
)
_REFERENCE_FRAMES = flags.DEFINE_list(
    "reference_frames", None, "Frames that are to look like the reference image, as 0,15 (SparseCtrl)"
)
_STRENGTH = flags.DEFINE_float("strength", None, "How far the upper model may go from the video below, up to 1")
_SAVE_REFERENCE = flags.DEFINE_boolean("save_reference", False, "Also write the reference image")
_AOT_TOPOLOGY = flags.DEFINE_string("aot_topology", None, "Only compile the programs for this TPU pod, e.g. v5e:2x2")
_AOT_OUTPUT = flags.DEFINE_string("aot_output", None, "With --aot_topology: a file for what was found, as JSON")
_PUBLIC_ONLY = (
    *(_MOTION_BUCKET_ID, _NOISE_AUG_STRENGTH, _MIN_GUIDANCE_SCALE, _CONDITIONING_FPS),
    *(_MOTION_SCALE, _REFERENCE_FRAMES, _STRENGTH),
)
_SETTINGS = (  # a recipe has them
    *(_SEED, _FRAMES, _FPS, _SIZE, _GUIDANCE_SCALE, _REFERENCE_GUIDANCE_SCALE, _STEPS),
    *_PUBLIC_ONLY,
)
_OVERRIDES = (_MODEL, _REFERENCE_MODEL, _UPPER_MODEL, _MOTION_ADAPTER, _MOTION_NORM, _SPARSE_CONTROL, _AOT, *_SETTINGS)


def _numbers() -> tuple[int, ...]:
    """The value of --reference_frames. ValueError: it is no list of numbers."""
    try:
        return tuple(map(int, _REFERENCE_FRAMES.value))
    except ValueError:
        raise ValueError(f"--reference_frames {','.join(_REFERENCE_FRAMES.value)} must be numbers, as 0,15") from None


def _config() -> ConfigDict:
    """The config, with each flag written over the field of its name, in the sections of all stages that have it."""
    config = _CONFIG.value
    with config.unlocked():
        for flag in _OVERRIDES:
            sections = [config, config.reference, config.cascade, config.get("video", {})]
            if flag is _STRENGTH:  # the upper stage's other fields are in `cascade`, which is for all
                sections = [config.get("upper", {})]
            for section in sections:
                if flag.value is not None and flag.name in section:
                    section[flag.name] = _numbers() if flag is _REFERENCE_FRAMES else flag.value
    return config


def _compile_only(topology: str) -> None:
    """Report on the programs for a pod: those of a pipeline, or of the stage of a training config."""
    from videogen_jax.scaling import training

    if "stage" in _CONFIG.value:
        reports = [training.sample_report(_CONFIG.value, topology)]
    else:
        from videogen_jax.scaling.sampling import pipeline_reports

        reports = pipeline_reports(_config(), topology)
    training.write(reports, _AOT_OUTPUT.value)


def main(argv: list[str]) -> None:
    del argv
    configure_output()
    try:
        if _AOT_TOPOLOGY.value is not None:
            _compile_only(_AOT_TOPOLOGY.value)
            return
        config, common = _config(), (_OUTPUT.value, _REFERENCE.value, _SAVE_REFERENCE.value)
        animates = _REFERENCE.value and _PROMPT.value is None and _PROMPTS_FILE.value is None
        prompts = [] if animates else None
        if not (_RECIPE.value or animates):
            prompts = read_prompts(_PROMPT.value, _PROMPTS_FILE.value)
        in_recipe = [flag.name for flag in (_PROMPT, _PROMPTS_FILE, *_SETTINGS) if flag.present]
        if _RECIPE.value and in_recipe:
            raise ValueError(f"--{in_recipe[0]} is part of the recipe: leave it out")

        from videogen_jax.sampling.command import remake, sample  # after what needs no JAX

        if _RECIPE.value:
            remake(config, _RECIPE.value, *common)
        else:
            sample(config, prompts, *common)
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("stopped", 130)


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(parse_with_default, config=DEFAULT_CONFIG))
