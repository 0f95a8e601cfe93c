"""From a config's `data` section to the source that a stage trains on."""

from pathlib import Path
from typing import Any

from absl import logging

from videogen_jax.data.loader import Source
from videogen_jax.data.shapes import BACKGROUNDS, SIZES, ShapesClip, all_triples
from videogen_jax.data.sources import ShapesCaptionedClips, ShapesFrames
from videogen_jax.data.vocabulary import load_tokenizer, train_tokenizer


def build_source(config: Any, stage: Any) -> Source:
    """The training examples of a config.

    Args:
      config: a training config; its `data` section names the source and gives the source's fields.
      stage: the stage, for what a cache has to hold.

    Raises:
      ValueError: naming the field that is unknown or missing.
    """
    data = dict(config.data)
    kind = data.pop("source")
    try:
        if kind == "shapes_frames":
            return ShapesFrames(**data)
        if kind == "shapes_captions":
            return ShapesCaptionedClips(**data, tokenizer=_shapes_tokenizer(config))
        if kind == "shapes_latents":
            from videogen_jax.data.cache import shapes_latents

            return shapes_latents(config.model_folder, **data)
    except TypeError as error:
        raise ValueError(f"config.data of source {kind!r}: {error}") from error
    raise ValueError(f"config.data.source is {kind!r}; it may be shapes_frames, shapes_captions or shapes_latents")


def _shapes_tokenizer(config: Any):
    """The tokenizer of the model folder, trained on the training captions if the folder has none yet."""
    folder = Path(config.model_folder) / "tokenizer"
    if not folder.exists():
        logging.info("Training the vocabulary into %s", folder)
        train_tokenizer(
            (
                ShapesClip(size, *triple, background, 0.5, 0.5).caption
                for size in SIZES
                for triple in all_triples("train")
                for background in BACKGROUNDS
            ),
            folder,
        )
    tokenizer = load_tokenizer(folder)
    if len(tokenizer) != config.model.text_encoder.vocab_size:
        raise ValueError(
            f"config.model.text_encoder.vocab_size is {config.model.text_encoder.vocab_size}, "
            f"but the tokenizer in {folder} has {len(tokenizer)} entries"
        )
    return tokenizer
