"""Writes a trained stage into a model folder.

    python -m videogen_jax.export --config configs/shapes/autoencoder.py --workdir runs/shapes/autoencoder \
        --output runs/shapes/model

The moving average of the parameters is written. Other parts of the folder stay as they are, so it grows stage by stage
into a complete model.
"""

from absl import app, flags
from ml_collections import config_flags

from videogen_jax.runtime.command_line import fail, parse

CONFIG = config_flags.DEFINE_config_file("config", None, "The stage's training config")
WORKDIR = flags.DEFINE_string("workdir", None, "The run to export")
OUTPUT = flags.DEFINE_string("output", None, "Model folder to write into")
STEP = flags.DEFINE_integer("step", None, "Checkpoint to export; the newest by default", lower_bound=0)
DTYPE = flags.DEFINE_enum("dtype", "float16", ["float16", "bfloat16", "float32"], "Type of the stored weights")
TEMPORAL_AUTOENCODER = flags.DEFINE_boolean(
    "temporal_autoencoder", False, "Write a video decoder with the encoder, as diffusers' AutoencoderKLTemporalDecoder"
)


def main(argv: list[str]) -> None:
    del argv
    from videogen_jax.runtime import compilation_cache
    from videogen_jax.runtime.backend import check_backend
    from videogen_jax.training.exporting import export_stage

    try:
        check_backend()
        compilation_cache.enable()
        arguments = (WORKDIR.value, OUTPUT.value, STEP.value, DTYPE.value, TEMPORAL_AUTOENCODER.value)
        for folder in export_stage(CONFIG.value, *arguments):
            print(folder)
    except (ValueError, OSError) as error:
        fail(error)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir", "output"])
    app.run(main, flags_parser=parse)
