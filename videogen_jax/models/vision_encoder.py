"""CLIP's vision transformer (Radford et al. 2021), laid out as `CLIPVisionModelWithProjection` in transformers.

The layers are those of the text encoder, without the causal mask.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from videogen_jax.models.text_encoder import ACTIVATIONS, CLIPEncoder, layer_norm

# Of the colour channels in [0, 1], on CLIP's training data.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class VisionEmbeddings(nn.Module):
    """Patches, the class token before them, and learned positions: `(B, H, W, 3)` -> `(B, 1 + patches, D)`.

    Pixels at the right and the bottom that do not fill a patch are left out.
    """

    hidden_size: int
    patch_size: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        size = (self.patch_size, self.patch_size)
        embed = nn.Conv(
            self.hidden_size, size, size, padding="VALID", use_bias=False, dtype=self.dtype, name="patch_embedding"
        )
        patches = embed(images).reshape(len(images), -1, self.hidden_size)
        token = self.param("class_embedding", nn.initializers.normal(0.02), (self.hidden_size,)).astype(self.dtype)
        x = jnp.concatenate([jnp.broadcast_to(token, (len(images), 1, self.hidden_size)), patches], axis=1)
        positions = nn.Embed(x.shape[1], self.hidden_size, dtype=self.dtype, name="position_embedding")
        return x + positions(jnp.arange(x.shape[1]))


class VisionTransformer(nn.Module):
    """Images `(B, H, W, 3)` -> the class token after the last layer and its norm, `(B, D)`."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_size: int
    hidden_act: str
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = VisionEmbeddings(self.hidden_size, self.patch_size, self.dtype, name="embeddings")(images)
        x = layer_norm(self.dtype, "pre_layrnorm")(x)  # as misspelt in the public weights
        x = CLIPEncoder(
            self.num_layers,
            self.intermediate_size,
            self.num_heads,
            self.hidden_act,
            self.dtype,
            causal=False,
            name="encoder",
        )(x)[-1]
        return layer_norm(self.dtype, "post_layernorm")(x[:, 0])


class CLIPVisionEncoder(nn.Module):
    """CLIP's vision encoder of any width, with its projection.

    Attributes:
      hidden_size, intermediate_size, num_layers, num_heads: as in transformers' `CLIPVisionConfig` (`num_hidden_layers`
        and `num_attention_heads` there).
      patch_size: side of the patches, in pixels.
      projection_dim: size P of the joint text and image space.
      image_size: side of the images, in pixels.
      hidden_act: "quick_gelu" (OpenAI's CLIP) or "gelu" (OpenCLIP).
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_size: int
    projection_dim: int
    image_size: int = 224
    hidden_act: str = "quick_gelu"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Embed images in CLIP's joint space.

        Args:
          images: `(B, image_size, image_size, 3)`, normalised by MEAN and STD.

        Returns:
          `(B, P)` in `dtype`, not of unit norm.

        Raises:
          ValueError: for an unknown activation, a width that the heads do not divide, or images of another size.
        """
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act must be one of {', '.join(ACTIVATIONS)}, not {self.hidden_act!r}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} must divide hidden_size {self.hidden_size}")
        if images.shape[1:3] != (self.image_size, self.image_size):
            raise ValueError(
                f"images are {images.shape[1]} x {images.shape[2]} pixels, but image_size is {self.image_size}"
            )
        pooled = VisionTransformer(
            self.hidden_size,
            self.intermediate_size,
            self.num_layers,
            self.num_heads,
            self.patch_size,
            self.hidden_act,
            self.dtype,
            name="vision_model",
        )(images)
        return nn.Dense(self.projection_dim, use_bias=False, dtype=self.dtype, name="visual_projection")(pooled)
