"""CLIP's text transformer (Radford et al. 2021), laid out as `CLIPTextModel` in transformers.

The parameter tree is the public checkpoint's with `layers.0` read as `layers_0`, so Stable Diffusion's text encoders
(OpenAI CLIP in 1.x, OpenCLIP in 2.x) load by renaming alone.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

LEGACY_EOS_TOKEN_ID = 2  # in old CLIP configs, although no token sequence ends with it


def quick_gelu(x: jax.Array) -> jax.Array:
    """Compute the sigmoid approximation of GELU that OpenAI's CLIP was trained with."""
    return x * nn.sigmoid(1.702 * x)


def exact_gelu(x: jax.Array) -> jax.Array:
    """Compute the GELU without approximation, as OpenCLIP does."""
    return nn.gelu(x, approximate=False)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": exact_gelu}


class TextFeatures(NamedTuple):
    """The text encoder's states of a batch of prompts.

    Attributes:
      last_hidden_state: `(B, L, D)`, after the final layer norm; the context of Stable Diffusion 1.x and 2.x.
      pooled: `(B, D)`, the last hidden state at the end-of-text token.
      hidden_states: num_layers + 1 arrays `(B, L, D)`, the embeddings and then each layer's output, none normalised;
        `hidden_states[-2]` is the context of SDXL.
      projected: `(B, P)`, the pooled state in CLIP's joint space, or None for an encoder without projection.
      before_last: `(B, L, D)`, the input of the last layer after the final layer norm; the context of I2VGen-XL.
    """

    last_hidden_state: jax.Array
    pooled: jax.Array
    hidden_states: tuple[jax.Array, ...]
    projected: jax.Array | None
    before_last: jax.Array


def layer_norm(dtype: jnp.dtype, name: str) -> nn.LayerNorm:
    """Return a LayerNorm with PyTorch's epsilon and statistics, of that name in the parent module."""
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=name)


class CLIPTextEmbeddings(nn.Module):
    """Token embedding plus learned position embedding: `(B, L)` -> `(B, L, D)`."""

    vocab_size: int
    hidden_size: int
    max_positions: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        def embed(size, std, name):
            init = nn.initializers.normal(std)
            return nn.Embed(size, self.hidden_size, dtype=self.dtype, embedding_init=init, name=name)

        positions = embed(self.max_positions, 0.01, "position_embedding")(jnp.arange(tokens.shape[1]))
        return embed(self.vocab_size, 0.02, "token_embedding")(tokens) + positions


class CLIPAttention(nn.Module):
    """Multi-head self-attention, causal in text and not in images: `(B, L, D)` -> `(B, L, D)`."""

    num_heads: int
    dtype: jnp.dtype = jnp.float32
    causal: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def project(name, y):
            return nn.Dense(x.shape[-1], dtype=self.dtype, name=name)(y)

        q, k, v = (
            project(name, x).reshape(*x.shape[:2], self.num_heads, x.shape[-1] // self.num_heads)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        return project("out_proj", jax.nn.dot_product_attention(q, k, v, is_causal=self.causal).reshape(x.shape))


class CLIPMLP(nn.Module):
    """Two linear layers with an activation between them: `(B, L, D)` -> `(B, L, D)`."""

    intermediate_size: int
    hidden_act: str
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = ACTIVATIONS[self.hidden_act](nn.Dense(self.intermediate_size, dtype=self.dtype, name="fc1")(x))
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="fc2")(h)


class CLIPEncoderLayer(nn.Module):
    """Pre-norm transformer layer: `(B, L, D)` -> `(B, L, D)`."""

    intermediate_size: int
    num_heads: int
    hidden_act: str
    dtype: jnp.dtype = jnp.float32
    causal: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = layer_norm(self.dtype, "layer_norm1")(x)
        x = x + CLIPAttention(self.num_heads, self.dtype, self.causal, name="self_attn")(h)
        h = layer_norm(self.dtype, "layer_norm2")(x)
        return x + CLIPMLP(self.intermediate_size, self.hidden_act, self.dtype, name="mlp")(h)


class CLIPEncoder(nn.Module):
    """The stack of layers: `(B, L, D)` -> the input and each layer's output."""

    num_layers: int
    intermediate_size: int
    num_heads: int
    hidden_act: str
    dtype: jnp.dtype = jnp.float32
    causal: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        states = [x]
        for i in range(self.num_layers):
            layer = CLIPEncoderLayer(
                self.intermediate_size,
                self.num_heads,
                self.hidden_act,
                self.dtype,
                self.causal,
                name=f"layers_{i}",
            )
            states.append(layer(states[-1]))
        return tuple(states)


class CLIPTextTransformer(nn.Module):
    """Embeddings, encoder, final layer norm: `(B, L)` -> normalised last and penultimate states, all hidden states."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    max_positions: int
    hidden_act: str
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
        x = CLIPTextEmbeddings(self.vocab_size, self.hidden_size, self.max_positions, self.dtype, name="embeddings")(
            tokens
        )
        states = CLIPEncoder(
            self.num_layers, self.intermediate_size, self.num_heads, self.hidden_act, self.dtype, name="encoder"
        )(x)
        norm = layer_norm(self.dtype, "final_layer_norm")
        return norm(states[-1]), norm(states[-2]), states


class CLIPTextEncoder(nn.Module):
    """CLIP's text encoder of any width.

    Attributes:
      vocab_size, hidden_size, intermediate_size, num_layers, num_heads: as in transformers' `CLIPTextConfig`
        (`num_hidden_layers` and `num_attention_heads` there).
      eos_token_id: the token whose first position is pooled. The value 2 of old configs means, as in transformers, the
        position of the highest token id.
      max_positions: the longest sequence.
      hidden_act: "quick_gelu" (OpenAI's CLIP) or "gelu" (OpenCLIP).
      projection_dim: size P of the joint text and image space (`CLIPTextModelWithProjection`), or None.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    eos_token_id: int
    max_positions: int = 77
    hidden_act: str = "quick_gelu"
    projection_dim: int | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> TextFeatures:
        """tokens: `(B, L)` int32, L <= max_positions.

        Raises:
          ValueError: for an unknown activation, a width that the heads do not divide, or too long a sequence.
        """
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act must be one of {', '.join(ACTIVATIONS)}, not {self.hidden_act!r}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} must divide hidden_size {self.hidden_size}")
        if tokens.shape[1] > self.max_positions:
            raise ValueError(f"{tokens.shape[1]} tokens are more than max_positions {self.max_positions}")
        last, before_last, states = CLIPTextTransformer(
            self.vocab_size,
            self.hidden_size,
            self.intermediate_size,
            self.num_layers,
            self.num_heads,
            self.max_positions,
            self.hidden_act,
            self.dtype,
            name="text_model",
        )(tokens)
        ends = tokens if self.eos_token_id == LEGACY_EOS_TOKEN_ID else tokens == self.eos_token_id
        pooled = jnp.take_along_axis(last, jnp.argmax(ends, axis=1)[:, None, None], axis=1)[:, 0]
        projected = None
        if self.projection_dim is not None:
            projected = nn.Dense(self.projection_dim, use_bias=False, dtype=self.dtype, name="text_projection")(pooled)
        return TextFeatures(last, pooled, states, projected, before_last)
