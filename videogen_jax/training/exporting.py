"""A run's moving average, written as parts of a model folder."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import SingleDeviceSharding

from videogen_jax.data.loader import take
from videogen_jax.models.autoencoder import AutoencoderKL
from videogen_jax.runtime.arrays import resize, to_unit
from videogen_jax.runtime.files import plain
from videogen_jax.stages import build_network, build_stage
from videogen_jax.stages.autoencoder import FrozenAutoencoder
from videogen_jax.stages.stage import Params
from videogen_jax.training.build import build_encoder, build_source, example_batch
from videogen_jax.training.checkpoints import Checkpoints, abstract_state
from videogen_jax.training.encoded import EncodedStage
from videogen_jax.training.model_config import explicit_fields
from videogen_jax.training.optimizer import fixed_leaves, make_optimizer
from videogen_jax.training.state import init_state
from videogen_jax.weights.diffusers_config import public_config
from videogen_jax.weights.folder import save_part
from videogen_jax.weights.parts import load_autoencoder_config, save_scheduler, temporal_autoencoder_part

CALIBRATION_FRAMES = 64  # frames whose latents set the autoencoder's scaling factor


def export_stage(
    config: Any,
    workdir: str | Path,
    output: str | Path,
    step: int | None = None,
    dtype: str = "float16",
    temporal_autoencoder: bool = False,
) -> list[Path]:
    """Writes the parts of a trained stage into the model folder `output`.

    Text encoder (with its tokenizer), autoencoder and reference UNet (with its scheduler) are written as transformers
    and diffusers have them.

    Args:
      temporal_autoencoder: write a video decoder together with the encoder of the model's autoencoder, as diffusers'
        `AutoencoderKLTemporalDecoder`, and not alone.

    Returns: the folders written.

    Raises:
      ValueError: if the run has no checkpoint, or not of that step, or diffusers has no such video decoder.
    """
    if temporal_autoencoder and config.stage != "decoder":
        raise ValueError(f"--temporal_autoencoder is for a decoder, but config.stage is {config.stage!r}")
    if not (Path(workdir) / "checkpoints").is_dir():
        raise ValueError(f"--workdir {workdir} holds no run: it has no checkpoints folder")
    stage = build_stage(config.stage, explicit_fields(config.model))
    trained, encoder = stage, build_encoder(config)
    if encoder is not None:
        trained = EncodedStage(stage, encoder[0])
    optimizer = make_optimizer(config.optimizer, config.steps)
    example = example_batch(config)
    shapes = jax.eval_shape(lambda rng: init_state(trained, optimizer, rng, example), jax.random.key(0))
    device = SingleDeviceSharding(jax.devices()[0])
    checkpoints = Checkpoints(workdir)
    try:
        state, _ = checkpoints.restore(abstract_state(shapes, jax.tree.map(lambda _: device, shapes)), step)
    finally:
        checkpoints.close()
    logging.info("Exporting %s at step %d", config.stage, int(state.step))

    written = []
    for name, (folder, part_config) in stage.parts().items():
        if config.stage == "autoencoder":
            part_config = {**part_config, **latent_factors(config, part_config, state.ema)}
        sample_size = config.data.get("resolution")
        params, part_config = state.ema[name], public_config(part_config, sample_size)
        if temporal_autoencoder:
            part_config, params = temporal_autoencoder_part(config.model_folder, part_config["decoder"], params)
        weights_name = "model.safetensors" if name == "text_encoder" else "diffusion_pytorch_model.safetensors"
        target = Path(output) / folder
        save_part(target, plain(part_config), params, weights_name=weights_name, dtype=dtype)
        written.append(target)
    if config.stage == "reference":
        save_scheduler(output, stage)
    if config.stage == "text" and Path(output).resolve() != Path(config.model_folder).resolve():
        shutil.copytree(Path(config.model_folder) / "tokenizer", Path(output) / "tokenizer", dirs_exist_ok=True)
    return written


def latent_factors(config: Any, part_config: dict, params: Params) -> dict[str, float]:
    """`scaling_factor` and `shift_factor` of an autoencoder's latents.

    Where the encoder was not trained, they are those of `config.init_from`, which the later stages know.
    """
    fixed = fixed_leaves(params, config.optimizer.fixed)["vae"]
    if config.init_from and all(jax.tree.leaves([fixed["encoder"], fixed.get("quant_conv", True)])):
        kept = load_autoencoder_config(config.init_from)
        return {"scaling_factor": kept.scaling_factor, "shift_factor": kept.shift_factor}
    return calibrate(part_config, params["vae"], build_source(config), config.model.scales)


def calibrate(
    part_config: dict, params: Params, source: Any, scales: tuple[tuple[float, int], ...]
) -> dict[str, float]:
    """`scaling_factor` and `shift_factor` of the latents, from frames as they are and at the scales of training."""
    fields = {name: value for name, value in part_config.items() if name != "_class_name"}
    autoencoder = FrozenAutoencoder(build_network(AutoencoderKL, fields, "config.model.autoencoder"), 1.0)
    images = to_unit(jnp.asarray(take(source, np.arange(min(CALIBRATION_FRAMES, len(source))))["images"]))
    encode = jax.jit(autoencoder.encode)
    sides = {images.shape[1], *(round(images.shape[1] * scale) for scale, _ in scales)}
    latents = [encode(params, resize(images, side)).reshape(-1) for side in sorted(sides)]
    means, stds = zip(*((float(x.mean()), float(x.std())) for x in latents), strict=True)
    return {"scaling_factor": 1.0 / float(np.mean(stds)), "shift_factor": float(np.mean(means))}
