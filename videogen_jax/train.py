"""Trains one stage.

    python -m videogen_jax.train --config configs/shapes/autoencoder.py --workdir runs/shapes/autoencoder

Started again with the same --workdir it goes on from the newest checkpoint. Any field of the config can be set from
the command line: `--config.batch_size=16`.
"""

from absl import app, flags
from ml_collections import config_flags

from videogen_jax.command_line import fail, parse

CONFIG = config_flags.DEFINE_config_file("config", None, "Training config, e.g. configs/shapes/autoencoder.py")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints and metrics; a run in it is resumed")


def main(argv: list[str]) -> None:
    del argv
    from videogen_jax.host_memory import keep_freed_memory
    from videogen_jax.training.loop import TrainingDiverged
    from videogen_jax.training.run import run

    keep_freed_memory()
    try:
        run(CONFIG.value, WORKDIR.value)
    except (ValueError, OSError) as error:
        fail(error)
    except TrainingDiverged as error:
        fail(error, status=1)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse)
