"""The shapes world as a plug-in: its sources and stages, as `training/worlds.py` lists them."""

from typing import TYPE_CHECKING, Any

from absl import logging

from videogen_jax.data.world import World
from videogen_jax.shapes.classifier import ClassifierStage
from videogen_jax.shapes.evaluation import EVALUATION
from videogen_jax.shapes.latents import LatentSource, shapes_latents
from videogen_jax.shapes.sources import ShapesCaptionedClips, ShapesFrames, ShapesLabelledClips
from videogen_jax.shapes.world import BACKGROUNDS, SIZES, ShapesClip, all_triples
from videogen_jax.weights.model_folder import ModelFolder
from videogen_jax.weights.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


def _frames(config: Any, model: ModelFolder, **fields: Any) -> ShapesFrames:
    del config, model
    return ShapesFrames(**fields)


def _captions(config: Any, model: ModelFolder, **fields: Any) -> ShapesCaptionedClips:
    return ShapesCaptionedClips(**fields, tokenizer=shapes_tokenizer(config, model))


def _labels(config: Any, model: ModelFolder, **fields: Any) -> ShapesLabelledClips:
    del config, model
    return ShapesLabelledClips(**fields)


def _latents(config: Any, model: ModelFolder, **fields: Any) -> LatentSource:
    del config
    return shapes_latents(model.path, **fields)


def shapes_tokenizer(config: Any, model: ModelFolder) -> "CLIPTokenizer":
    """Return the tokenizer of the model folder, trained on the training captions first if the folder has none.

    Raises:
      ValueError: its size is not the text encoder's.
    """
    folder = model.path / "tokenizer"
    if not folder.exists():
        logging.info("Training the vocabulary into %s", folder)
        captions = (
            ShapesClip(size, *triple, background, 0.5, 0.5).caption
            for size in SIZES
            for triple in all_triples("train")
            for background in BACKGROUNDS
        )
        train_tokenizer(captions, folder)
    tokenizer = model.tokenizer
    if len(tokenizer) != config.model.text_encoder.vocab_size:
        raise ValueError(
            f"config.model.text_encoder.vocab_size is {config.model.text_encoder.vocab_size}, "
            f"but the tokenizer in {folder} has {len(tokenizer)} entries"
        )
    return tokenizer


WORLD = World(
    name="shapes",
    sources={
        "shapes_frames": _frames,
        "shapes_captions": _captions,
        "shapes_labels": _labels,
        "shapes_latents": _latents,
    },
    stages={"classifier": ClassifierStage},
    evaluation=EVALUATION,
)
