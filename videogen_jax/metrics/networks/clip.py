"""CLIP with both its towers (Radford et al. 2021), laid out as transformers' `CLIPModel`: ViT-B/32 for CLIPSIM."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from videogen_jax.models.text_encoder import CLIPTextEncoder
from videogen_jax.models.vision_encoder import MEAN, STD, CLIPVisionEncoder
from videogen_jax.weights import naming
from videogen_jax.weights.diffusers_config import VISION_NAMES, text_encoder_fields, vision_encoder_fields
from videogen_jax.weights.folder import CONFIG_NAME, load_config
from videogen_jax.weights.tensors import load_tensors
from videogen_jax.weights.tokenizer import load_tokenizer, tokenize

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


@dataclasses.dataclass(frozen=True)
class CLIP:
    """Images and captions in the joint space, of unit norm.

    Attributes:
      text, vision: the towers; text_params, vision_params: their parameters.
      image_size: side of the images that the vision tower takes.
      tokenizer: of the text tower.
    """

    text: CLIPTextEncoder
    vision: CLIPVisionEncoder
    text_params: Any
    vision_params: Any
    image_size: int
    tokenizer: "CLIPTokenizer | None"

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """Embed images, uint8 `(B, H, W, 3)`, as `(B, P)` float32."""
        return np.asarray(self._images(self.vision_params, preprocess(images, self.image_size)))

    def embed_texts(self, captions: Sequence[str]) -> np.ndarray:
        """Embed captions, truncated to the longest text that the tower takes, as `(B, P)` float32."""
        return np.asarray(self._texts(self.text_params, jnp.asarray(tokenize(self.tokenizer, list(captions)))))

    @functools.cached_property
    def _images(self):
        return jax.jit(lambda params, images: _unit(self.vision.apply({"params": params}, images)))

    @functools.cached_property
    def _texts(self):
        return jax.jit(lambda params, tokens: _unit(self.text.apply({"params": params}, tokens).projected))


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def preprocess(images: np.ndarray, size: int) -> np.ndarray:
    """Preprocess images, uint8 `(B, H, W, 3)`, to float32 `(B, size, size, 3)` as CLIP's image processor does.

    The shorter side is resized to `size` by Pillow's bicubic filter, the centre cropped, each channel normalised.
    """
    height, width = images.shape[1:3]
    short = min(height, width)
    height, width = (int(size * side / short) for side in (height, width))
    top, left = (height - size) // 2, (width - size) // 2
    resized = [
        np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        for image in np.asarray(images)
    ]
    cut = np.stack(resized)[:, top : top + size, left : left + size].astype(np.float32) / 255.0
    return (cut - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)


def load_clip(folder: str | Path) -> CLIP:
    """Load CLIP from a folder in transformers' layout (`openai/clip-vit-base-patch32`): config, safetensors, tokenizer.

    Raises:
      ValueError: the folder lacks a file, or its tensors do not fit its config.
    """
    folder = Path(folder)
    config = load_config(folder)
    projection = config.get("projection_dim", 512)
    of_text = {
        **(config.get("text_config") or {}),
        "architectures": ["CLIPTextModelWithProjection"],
        "projection_dim": projection,
    }
    # Of the vision tower only the fields that say what it computes: older files have those of every model beside them.
    of_vision = {name: value for name, value in (config.get("vision_config") or {}).items() if name in VISION_NAMES}
    of_vision |= {"architectures": ["CLIPVisionModelWithProjection"], "projection_dim": projection}
    text = CLIPTextEncoder(**text_encoder_fields(of_text, f"{folder / CONFIG_NAME}, text_config"))
    vision = CLIPVisionEncoder(**vision_encoder_fields(of_vision, f"{folder / CONFIG_NAME}, vision_config"))
    size = vision.image_size
    key = jax.random.key(0)
    templates = {
        **jax.eval_shape(text.init, key, jnp.zeros((1, 2), jnp.int32))["params"],
        **jax.eval_shape(vision.init, key, jnp.zeros((1, size, size, 3)))["params"],
    }
    stored = {name: tensor for name, tensor in load_tensors(folder).items() if name != "logit_scale"}
    try:
        params = naming.from_public(stored, templates)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return CLIP(
        text,
        vision,
        {name: params[name] for name in ("text_model", "text_projection")},
        {name: params[name] for name in ("vision_model", "visual_projection")},
        size,
        load_tokenizer(folder, text.max_positions),
    )
