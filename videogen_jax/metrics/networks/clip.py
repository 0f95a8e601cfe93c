"""CLIP with both its towers (Radford et al. 2021), laid out as transformers' `CLIPModel`: ViT-B/32 for CLIPSIM."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from videogen_jax.models.text_encoder import CLIPEncoder, CLIPTextEncoder, layer_norm
from videogen_jax.weights import naming
from videogen_jax.weights.diffusers_config import text_encoder_fields
from videogen_jax.weights.folder import CONFIG_NAME, load_config
from videogen_jax.weights.tensors import load_tensors
from videogen_jax.weights.tokenizer import load_tokenizer, tokenize

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_VISION_FIELDS = {  # as CLIPVisionConfig has them by default, which is ViT-B/32
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
}


class VisionEmbeddings(nn.Module):
    """Patches, the class token before them, and learned positions: `(B, H, W, 3)` -> `(B, 1 + patches, D)`."""

    hidden_size: int
    patch_size: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        size = (self.patch_size, self.patch_size)
        patches = nn.Conv(self.hidden_size, size, size, padding="VALID", use_bias=False, name="patch_embedding")(images)
        patches = patches.reshape(len(images), -1, self.hidden_size)
        token = self.param("class_embedding", nn.initializers.normal(0.02), (self.hidden_size,))
        x = jnp.concatenate([jnp.broadcast_to(token, (len(images), 1, self.hidden_size)), patches], axis=1)
        positions = nn.Embed(x.shape[1], self.hidden_size, name="position_embedding")(jnp.arange(x.shape[1]))
        return x + positions


class VisionTransformer(nn.Module):
    """Images `(B, H, W, 3)` -> the class token after the last layer and its norm, `(B, D)`."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_size: int
    hidden_act: str

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = VisionEmbeddings(self.hidden_size, self.patch_size, name="embeddings")(images)
        x = layer_norm(jnp.float32, "pre_layrnorm")(x)  # as misspelt in the public weights
        x = CLIPEncoder(
            self.num_layers, self.intermediate_size, self.num_heads, self.hidden_act, causal=False, name="encoder"
        )(x)[-1]
        return layer_norm(jnp.float32, "post_layernorm")(x[:, 0])


class CLIPVisionEncoder(nn.Module):
    """The image tower with its projection: normalised images `(B, H, W, 3)` -> `(B, projection_dim)`."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_size: int
    projection_dim: int
    hidden_act: str = "quick_gelu"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        pooled = VisionTransformer(
            self.hidden_size,
            self.intermediate_size,
            self.num_layers,
            self.num_heads,
            self.patch_size,
            self.hidden_act,
            name="vision_model",
        )(images)
        return nn.Dense(self.projection_dim, use_bias=False, name="visual_projection")(pooled)


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
    of_vision = {**_VISION_FIELDS, **(config.get("vision_config") or {})}
    text = CLIPTextEncoder(**text_encoder_fields(of_text, f"{folder / CONFIG_NAME}, text_config"))
    vision = CLIPVisionEncoder(
        of_vision["hidden_size"],
        of_vision["intermediate_size"],
        of_vision["num_hidden_layers"],
        of_vision["num_attention_heads"],
        of_vision["patch_size"],
        projection,
        of_vision["hidden_act"],
    )
    size = of_vision["image_size"]
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
        load_tokenizer(folder),
    )
