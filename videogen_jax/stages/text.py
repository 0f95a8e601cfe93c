"""A text encoder trained from scratch: CLIP's contrastive objective on captioned clips (Radford et al. 2021).

At the paper's scale the text encoder is Stable Diffusion's CLIP, unchanged. The embedded model has a vocabulary of its
own, so its encoder is trained here against a small video tower, which is then discarded.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from videogen_jax.models.layers import group_norm
from videogen_jax.models.partitioning import constrain
from videogen_jax.models.text_encoder import CLIPTextEncoder
from videogen_jax.runtime.arrays import to_unit
from videogen_jax.stages.stage import (
    Batch,
    InputSizes,
    Metrics,
    ModelReader,
    ModelWriter,
    Params,
    Spec,
    Stage,
    build_network,
)


class VideoTower(nn.Module):
    """A few frames to one vector: frames are concatenated on the channel axis, so motion is a pattern of channels.

    `(B, T, H, W, 3)` in [-1, 1] -> `(B, projection_dim)`.
    """

    channels: tuple[int, ...]
    projection_dim: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, video: jax.Array) -> jax.Array:
        b, t, h, w, c = video.shape
        x = jnp.moveaxis(video, 1, 3).reshape(b, h, w, t * c)
        for i, features in enumerate(self.channels):
            x = nn.Conv(features, (3, 3), strides=(2, 2) if i else (1, 1), dtype=self.dtype, name=f"conv_{i}")(x)
            x = nn.silu(group_norm(8, 1e-6, self.dtype, f"norm_{i}")(x))
        x = constrain(x, "batch", "whole", "whole", "whole")  # before the reshape: see `constrain`
        x = x.reshape(b, -1)  # no pooling over positions: captions say where a thing is and where it goes
        return nn.Dense(self.projection_dim, dtype=self.dtype, name="projection")(x)


@dataclasses.dataclass(frozen=True)
class TextStage(Stage):
    """Contrastive training of the text encoder.

    Attributes:
      text_encoder: fields of `CLIPTextEncoder`; `projection_dim` must be set.
      video_channels: widths of the video tower's layers; each after the first halves the resolution.
      uniformity_weight: weight of the term that spreads the captions (`uniformity`). Without it, words whose pictures
        the small video tower cannot tell apart, such as circle and square, get the same embedding.
      trained_words: words of one token each. Only their embeddings are trained, as in textual inversion (Gal et al.
        2022), so that prompts without them keep their states; `optimizer.weight_decay` must be 0. (): train the whole
        encoder.
    """

    text_encoder: Mapping[str, Any]
    video_channels: tuple[int, ...] = (32, 64, 96, 128)
    uniformity_weight: float = 0.0
    trained_words: tuple[str, ...] = ()

    name = "text"

    @property
    def network(self) -> CLIPTextEncoder:
        return build_network(CLIPTextEncoder, self.text_encoder, "config.model.text_encoder")

    @property
    def video_tower(self) -> VideoTower:
        return VideoTower(self.video_channels, self.network.projection_dim, self.network.dtype)

    def input_spec(self, sizes: InputSizes) -> Spec:
        video = (sizes.num_frames, sizes.resolution, sizes.resolution, 3)
        return {
            "tokens": jax.ShapeDtypeStruct((self.network.max_positions,), jnp.int32),
            "video": jax.ShapeDtypeStruct(video, jnp.uint8),
        }

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        text_rng, video_rng = jax.random.split(rng)
        tokens, video = flatten_groups(batch)
        return {
            "text_encoder": self.network.init(text_rng, tokens)["params"],
            "video_tower": self.video_tower.init(video_rng, video)["params"],
            "logit_scale": jnp.asarray(jnp.log(1 / 0.07), jnp.float32),
        }

    def check_settings(self, config: Any) -> None:
        if self.trained_words and config.optimizer.weight_decay:
            raise ValueError(
                f"config.optimizer.weight_decay is {config.optimizer.weight_decay}, but must be 0 with "
                "config.model.trained_words: it would change the embeddings of all other words"
            )

    def frozen_spec(self, inputs: Spec) -> Params:
        del inputs
        count = len(self.trained_words)
        return {"trained_tokens": jax.ShapeDtypeStruct((count,), jnp.int32)} if count else {}

    def load_frozen(self, model: ModelReader) -> Params:
        if not self.trained_words:
            return {}
        try:
            return {"trained_tokens": model.single_tokens(self.trained_words)}
        except ValueError as error:
            raise ValueError(f"config.model.trained_words: {error}") from error

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """The symmetric cross-entropy of CLIP (figure 3), with one change: clips of equal captions are each other's
        positives too, since the shapes world has few captions and a batch holds some of them twice.

        Args:
          frozen: `trained_tokens` int32 `(N,)`, those of `trained_words`, if there are any.
          batch: `tokens` int32 `(B, L)`, `video` uint8 `(B, T, H, W, 3)`, or groups of K similar clips, `(B, K, ...)`.
        """
        tokens, video = flatten_groups(batch)
        encoder = params["text_encoder"]
        if self.trained_words:
            encoder = only_embeddings(encoder, frozen["trained_tokens"])
        text = self.network.apply({"params": encoder}, tokens).projected
        video = self.video_tower.apply({"params": params["video_tower"]}, video)
        text, video = (x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-6) for x in (text, video))
        logits = text @ video.T * jnp.exp(jnp.minimum(params["logit_scale"], jnp.log(100.0)))
        same = jnp.all(tokens[:, None] == tokens[None], axis=-1).astype(jnp.float32)
        targets = same / same.sum(axis=-1, keepdims=True)
        per_text = optax.softmax_cross_entropy(logits, targets)
        per_video = optax.softmax_cross_entropy(logits.T, targets)
        hit = jnp.take_along_axis(same, logits.argmax(axis=0)[:, None], axis=1)
        spread = uniformity(text, same)
        contrastive = 0.5 * (per_text.mean() + per_video.mean())
        metrics = {"contrastive": contrastive, "uniformity": spread, "retrieval": hit.mean()}
        return contrastive + self.uniformity_weight * spread, metrics

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        return {"truth": flatten_groups(batch)[1]}

    def parts(self) -> dict[str, tuple[str, dict]]:
        return {"text_encoder": ("text_encoder", {"_class_name": "CLIPTextEncoder", **self.text_encoder})}

    def export(self, params: Params, writer: ModelWriter) -> None:
        super().export(params, writer)
        writer.copy_from_model("tokenizer")


def flatten_groups(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The clips of all groups along one axis: tokens `(N, L)`, video `(N, T, H, W, 3)` in [-1, 1]."""
    tokens, video = batch["tokens"], batch["video"]
    return tokens.reshape(-1, tokens.shape[-1]), to_unit(video.reshape(-1, *video.shape[-4:]))


def only_embeddings(encoder: Params, tokens: jax.Array) -> Params:
    """A text encoder's parameters with a gradient for the embeddings of `tokens` `(N,)` alone."""

    def stop(path, leaf):
        stopped = jax.lax.stop_gradient(leaf)
        return stopped.at[tokens].set(leaf[tokens]) if path[-2].key == "token_embedding" else stopped

    return jax.tree_util.tree_map_with_path(stop, encoder)


def uniformity(x: jax.Array, same: jax.Array) -> jax.Array:
    """Logarithm of the mean Gaussian potential of the pairs of `x` (Wang and Isola 2020, section 4.1.2): low when even.

    Args:
      x: `(N, D)`, of unit norm.
      same: `(N, N)`, 1 for the pairs that are one caption and are left out.
    """
    potential = jnp.exp(-2.0 * (2.0 - 2.0 * x @ x.T)) * (1.0 - same)
    return jnp.log(potential.sum() / (1.0 - same).sum() + 1e-9)
