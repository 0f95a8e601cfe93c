"""A run's moving average, written as parts of a model folder."""

import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import SingleDeviceSharding

from videogen_jax.data.loader import take
from videogen_jax.stages.latent_diffusion import LatentDiffusion
from videogen_jax.stages.stage import Batch, Params, Stage, batch_spec
from videogen_jax.training.build import build_source, init_from, input_sizes, stage_of
from videogen_jax.training.checkpoints import Checkpoints, abstract_state
from videogen_jax.training.optimizer import fixed_leaves, make_optimizer
from videogen_jax.training.state import TrainState, init_state
from videogen_jax.weights.model_folder import ModelFolder
from videogen_jax.weights.parts import save_public_part, temporal_autoencoder_part
from videogen_jax.weights.scheduler_config import save_scheduler


def export_stage(
    config: Any,
    workdir: str | Path,
    output: str | Path,
    step: int | None = None,
    dtype: str = "float16",
    temporal_autoencoder: bool = False,
) -> list[Path]:
    """Write the parts of a trained stage into the model folder `output`.

    Text encoder (with its tokenizer), autoencoder and reference UNet (with its scheduler) are written as transformers
    and diffusers have them.

    Args:
      config: of the run.
      workdir: of the run.
      output: a model folder; its other parts stay as they are.
      step: of the checkpoint; None: the newest.
      dtype: of the stored weights.
      temporal_autoencoder: write a video decoder together with the encoder of the model's autoencoder, as diffusers'
        `AutoencoderKLTemporalDecoder`, instead of alone.

    Returns: the folders of the parts.

    Raises:
      ValueError: the run has no checkpoint, or not of that step, or diffusers has no such video decoder.
    """
    stage = stage_of(config)
    if temporal_autoencoder and "video_decoder" not in stage.parts():
        raise ValueError(f"--temporal_autoencoder is for a decoder, but config.stage is {config.stage!r}")
    if not (Path(workdir) / "checkpoints").is_dir():
        raise ValueError(f"--workdir {workdir} holds no run: it has no checkpoints folder")
    export = Export(config, stage, Path(output), dtype, temporal_autoencoder)
    state = restore(config, stage, export.model, workdir, step)
    logging.info("Exporting %s at step %d", config.stage, int(state.step))
    stage.export(state.ema, export)
    return export.written


def restore(config: Any, stage: Stage, model: ModelFolder, workdir: str | Path, step: int | None) -> TrainState:
    """The state of a run, on one device. Its shapes follow from the config: no data are read."""
    optimizer = make_optimizer(config.optimizer, config.steps)
    batch = batch_spec(stage.input_spec(input_sizes(config, stage, model)))
    create = functools.partial(init_state, stage, optimizer)
    shapes = jax.eval_shape(create, jax.random.key(0), batch)
    device = SingleDeviceSharding(jax.devices()[0])
    checkpoints = Checkpoints(workdir)
    try:
        state, _ = checkpoints.restore(abstract_state(shapes, jax.tree.map(lambda _: device, shapes)), step)
    finally:
        checkpoints.close()
    return state


class Export:
    """The `ModelWriter` of a training config.

    Attributes:
      model: of `config.model_folder`.
      init_from: of `config.init_from`, or None.
      written: folders of the parts that were saved.
    """

    def __init__(self, config: Any, stage: Stage, output: Path, dtype: str, temporal_autoencoder: bool):
        self.model = ModelFolder(config.model_folder)
        self.init_from = init_from(config)
        self.written: list[Path] = []
        self._config, self._stage = config, stage
        self._output, self._dtype, self._temporal_autoencoder = output, dtype, temporal_autoencoder

    def untrained(self, params: Params) -> Params:
        """True for each leaf of `params` that `config.optimizer.fixed` kept from training."""
        return fixed_leaves(params, self._config.optimizer.fixed)

    def examples(self, count: int) -> Batch:
        """The first `count` training examples, or all if there are fewer."""
        source = build_source(self._config, self._stage, self.model)
        return take(source, np.arange(min(count, len(source))))

    def save(self, folder: str, config: Mapping[str, Any], params: Params) -> None:
        """Write a part; config: as `Stage.parts` gives it."""
        if self._temporal_autoencoder:
            config, params = temporal_autoencoder_part(self.model.path, config["decoder"], params)
        target = self._output / folder
        save_public_part(target, config, params, self._config.data.get("resolution"), self._dtype)
        self.written.append(target)

    def save_scheduler(self, stage: LatentDiffusion) -> None:
        """Write the `scheduler` folder of a UNet, which samples as `stage` does."""
        save_scheduler(self._output, stage)

    def copy_from_model(self, folder: str) -> None:
        """Copy a folder, or a file, of `model`, unless that is the output itself; nothing where there is none."""
        source, target = self.model.path / folder, self._output / folder
        if self._output.resolve() == self.model.path.resolve():
            return
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copy2(source, target)
