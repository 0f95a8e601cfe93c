"""From a config to a training run: builds the stage, its data, and the frozen parts that it leans on."""

from pathlib import Path
from typing import Any

import jax
from absl import logging

from videogen_jax.data.build import build_source
from videogen_jax.stages import build_stage
from videogen_jax.training.loop import train
from videogen_jax.training.state import TrainState


def run(config: Any, workdir: str | Path, stop_after: int | None = None) -> TrainState:
    """Trains the stage of `config` in `workdir`, or goes on with the run that is there.

    Raises:
      ValueError: for a config that cannot work, before anything is compiled.
    """
    logging.info("JAX %s on %d %s", jax.__version__, jax.device_count(), jax.default_backend())
    stage = build_stage(config.stage, config.model.to_dict())
    source = build_source(config, stage)
    decode = None
    return train(config, stage, source, workdir, decode=decode, stop_after=stop_after)
