"""From a config to a training run: the stage, its data, and the frozen parts that it needs."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import logging

from videogen_jax.data.loader import Source
from videogen_jax.stages.stage import InputSizes, Params, Stage
from videogen_jax.training.build import build_encoder, build_source, init_from, stage_of
from videogen_jax.training.encoded import EncodedStage, with_reference_encoders
from videogen_jax.training.loop import Decode, check_settings, train
from videogen_jax.training.state import TrainState
from videogen_jax.weights.model_folder import ModelFolder


class TrainingInputs(NamedTuple):
    """What a training run works with.

    Attributes:
      stage: what is trained; an `EncodedStage` where it reads latents and the source holds video files.
      source: training examples.
      images: still images that are mixed in, or None.
      frozen: what the loss reads and does not train.
      decode: latents to frames for the samples in the log; None for a stage that reads no latents.
      initial_params: from fresh parameters to those that training starts from.
    """

    stage: Stage
    source: Source
    images: Source | None
    frozen: Params
    decode: Decode | None
    initial_params: Callable[[Params], Params]


def run(
    config: Any, workdir: str | Path, stop_after: int | None = None, profile_steps: range | None = None
) -> TrainState:
    """Train the stage of `config` in `workdir`, or resume the run that is there.

    Args:
      config: a training config.
      workdir, stop_after, profile_steps: see `train`.

    Raises:
      ValueError: for a config that cannot work, before anything is compiled.
      TrainingDiverged, Preempted, CannotSave: see `train`.
    """
    logging.info("JAX %s on %d %s", jax.__version__, jax.device_count(), jax.default_backend())
    inputs = load_inputs(config, workdir)
    return train(
        config,
        inputs.stage,
        inputs.source,
        workdir,
        inputs.frozen,
        inputs.decode,
        inputs.initial_params,
        stop_after,
        inputs.images,
        profile_steps,
    )


def load_inputs(config: Any, workdir: str | Path) -> TrainingInputs:
    """Build the stage of a config and its data, and read the frozen parts.

    Raises:
      ValueError: for a config that cannot work.
    """
    stage = stage_of(config)
    check_settings(config)
    stage.check_settings(config)
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)  # first: a model_folder beside it that is not there yet is no hub id
    model = ModelFolder(config.model_folder, config.perceptual_weights)

    process = "" if jax.process_count() == 1 else f"-{jax.process_index()}"
    source = build_source(config, stage, model, skipped_file=workdir / f"skipped{process}.jsonl")
    images = None
    if config.image_fraction:
        if (config.data.source == "videos") != (config.image_data.source == "videos"):
            raise ValueError(
                f"config.image_data.source is {config.image_data.source!r} and config.data.source "
                f"{config.data.source!r}; images and clips come both straight from files, or both prepared"
            )
        skipped_images = workdir / f"skipped_images{process}.jsonl"
        images = build_source(config, stage, model, config.image_data, skipped_images)

    frozen = stage.load_frozen(model)
    decode = None
    if "latents" in stage.input_spec(InputSizes()):
        autoencoder, vae = model.autoencoder(), model.autoencoder_params
        decode = jax.jit(lambda latents: autoencoder.decode(vae, latents))
    initial_params = functools.partial(stage.warm_start, model=model, init_from=init_from(config))
    encoder = build_encoder(config, stage, model)
    stage, encoders = with_reference_encoders(stage, model)
    frozen = {**frozen, **encoders}
    if encoder is not None:
        stage, frozen = EncodedStage(stage, encoder[0]), {**frozen, "encoder": encoder[1]}
    return TrainingInputs(stage, source, images, frozen, decode, initial_params)
