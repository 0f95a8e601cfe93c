"""From a config to a training run: builds the stage, its data, and the frozen parts that it leans on."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from videogen_jax.models.unet import image_part, inflate_unet
from videogen_jax.models.vgg import VGG16Features
from videogen_jax.stages import build_stage
from videogen_jax.stages.stage import Params, Stage
from videogen_jax.training.build import build_encoder, build_source
from videogen_jax.training.encoded import EncodedStage
from videogen_jax.training.loop import check_settings, train
from videogen_jax.training.model_config import explicit_fields
from videogen_jax.training.state import TrainState
from videogen_jax.weights.folder import load_part
from videogen_jax.weights.parts import load_autoencoder, load_text_encoder, part_prefix
from videogen_jax.weights.tokenizer import load_tokenizer, single_tokens, tokenize


def run(config: Any, workdir: str | Path, stop_after: int | None = None) -> TrainState:
    """Trains the stage of `config` in `workdir`, or goes on with the run that is there.

    Raises:
      ValueError: for a config that cannot work, before anything is compiled.
      TrainingDiverged, Preempted, CannotSave: see `train`.
    """
    logging.info("JAX %s on %d %s", jax.__version__, jax.device_count(), jax.default_backend())
    stage = build_stage(config.stage, explicit_fields(config.model))
    check_settings(config)
    process = "" if jax.process_count() == 1 else f"-{jax.process_index()}"
    source = build_source(config, skipped_file=Path(workdir) / f"skipped{process}.jsonl")
    images = None
    if config.image_fraction:
        if (config.data.source == "videos") != (config.image_data.source == "videos"):
            raise ValueError(
                f"config.image_data.source is {config.image_data.source!r} and config.data.source "
                f"{config.data.source!r}; images and clips come both straight from files, or both prepared"
            )
        images = build_source(config, config.image_data, Path(workdir) / f"skipped_images{process}.jsonl")
    frozen, decode = frozen_parts(config)
    initial = initial_params(config, stage)
    encoder = build_encoder(config)
    if encoder is not None:
        stage, frozen = EncodedStage(stage, encoder[0]), {**frozen, "encoder": encoder[1]}
    return train(config, stage, source, workdir, frozen, decode, initial, stop_after, images)


def frozen_parts(config: Any) -> tuple[Params, Callable[[jax.Array], jax.Array] | None]:
    """What the stage's loss reads and does not train, and the decoding of latents for its sample videos."""
    if config.stage == "text" and config.model.get("trained_words"):
        if config.optimizer.weight_decay:
            raise ValueError(
                f"config.optimizer.weight_decay is {config.optimizer.weight_decay}, but must be 0 with "
                "config.model.trained_words: it would change the embeddings of all other words"
            )
        tokenizer = load_tokenizer(Path(config.model_folder) / "tokenizer")
        try:
            tokens = single_tokens(tokenizer, config.model.trained_words)
        except ValueError as error:
            raise ValueError(f"config.model.trained_words: {error}") from error
        return {"trained_tokens": np.asarray(tokens, np.int32)}, None
    if config.stage in ("text", "autoencoder", "classifier"):
        return {}, None
    autoencoder, vae = load_autoencoder(config.model_folder)
    frozen: dict[str, Any] = {}
    if config.stage in ("reference", "cascade"):
        text = load_text_encoder(config.model_folder)
        frozen["null_context"] = text.encode(text.params, jnp.asarray(tokenize(text.tokenizer, [""])))[0]
    if config.stage == "decoder":
        frozen["scaling_factor"] = np.float32(autoencoder.scaling_factor)
        frozen["shift_factor"] = np.float32(autoencoder.shift_factor)
        if config.model.perceptual_weight:
            if not config.perceptual_weights:
                raise ValueError(
                    "config.model.perceptual_weight is on: set config.perceptual_weights to a folder with the "
                    "safetensors of torchvision's VGG-16 features, or config.model.perceptual_weight to 0"
                )
            template = jax.eval_shape(VGG16Features().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
            frozen["vgg"] = load_part(config.perceptual_weights, template)
    return frozen, jax.jit(lambda latents: autoencoder.decode(vae, latents))


def initial_params(config: Any, stage: Stage) -> Callable[[Params], Params] | None:
    """How fresh parameters become those that training starts from; None leaves them fresh."""
    if config.init_from:
        parts = {name: Path(config.init_from) / folder for name, (folder, _) in stage.parts().items()}
        if config.stage == "cascade" and not parts[stage.name].is_dir():
            return partial(_inflate, stage, Path(config.init_from))

        if config.stage == "decoder" and not parts["video_decoder"].is_dir():
            parts = {"video_decoder": Path(config.init_from) / "vae"}  # Stable Video Diffusion's

        def load(fresh: Params) -> Params:
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), dict(fresh))
            loaded = {name: load_part(at, shapes[name], prefix=part_prefix(at)) for name, at in parts.items()}
            return {**fresh, **loaded}

        return load
    if config.stage == "decoder":
        _, vae = load_autoencoder(config.model_folder)
        return lambda fresh: stage.start_from_autoencoder(fresh, vae)
    return None


def _inflate(stage: Stage, folder: Path, fresh: Params) -> Params:
    """The parameters of a cascade stage whose spatial layers are those of a model's 2D UNet."""
    folder = folder / "unet" if (folder / "unet").is_dir() else folder
    unet = load_part(folder, image_part(fresh[stage.name], stage.latent_channels))
    return {**fresh, stage.name: inflate_unet(unet, fresh[stage.name], stage.reference_init)}
