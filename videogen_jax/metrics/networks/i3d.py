"""I3D (Carreira and Zisserman 2017), trained on Kinetics-400: the features of the Fréchet video distance.

Parameters are named as in the PyTorch port that is widely used (piergiaj/pytorch-i3d, taken over by VideoGPT): blocks
`b0`, `b1a`, `b1b`, `b2a`, `b2b`, `b3b` of convolution `conv3d` and batch norm `bn`. `public_names` brings the other
known layout, whose blocks are `branch_0`, `branch_1.0`, ..., to it.
"""

import re
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.metrics.networks.layers import FrozenBatchNorm, resize_bilinear, unit_range

FRAMES = 16
SIDE = 224
# The batch norms' epsilon was 1e-3 where the network was trained; VideoGPT's port has 1e-5. By it alone the two
# protocols that the field quotes differ here.
EPSILONS = {"tensorflow": 1e-3, "videogpt": 1e-5}
_MIXED = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}


class Unit3D(nn.Module):
    """Convolution without bias, batch norm and ReLU, padded as TensorFlow's "SAME": `(B, T, H, W, C)`."""

    features: int
    kernel: int
    stride: int = 1
    eps: float = EPSILONS["tensorflow"]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, strides = (self.kernel,) * 3, (self.stride,) * 3
        x = nn.Conv(self.features, size, strides, padding="SAME", use_bias=False, name="conv3d")(x)
        return nn.relu(FrozenBatchNorm(self.eps, name="bn")(x))


def max_pool(x: jax.Array, window: tuple[int, int, int], strides: tuple[int, int, int]) -> jax.Array:
    """ "SAME" max pooling after ReLU: the border counts as zero, which no value is below."""
    return nn.max_pool(x, window, strides, padding="SAME")


class Mixed(nn.Module):
    """Inception block of four branches (Szegedy et al. 2015), joined on the channel axis."""

    widths: tuple[int, int, int, int, int, int]
    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def unit(index, kernel, name):
            return Unit3D(self.widths[index], kernel, eps=self.eps, name=name)

        branches = (
            unit(0, 1, "b0")(x),
            unit(2, 3, "b1b")(unit(1, 1, "b1a")(x)),
            unit(4, 3, "b2b")(unit(3, 1, "b2a")(x)),
            unit(5, 1, "b3b")(max_pool(x, (3, 3, 3), (1, 1, 1))),
        )
        return jnp.concatenate(branches, axis=-1)


class Logits(nn.Module):
    """Linear layer at each position, its kernel that of a 1x1x1 convolution."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Conv(self.features, (1, 1, 1), name="conv3d")(x)


class I3D(nn.Module):
    """Inflated Inception-v1.

    Attributes:
      num_classes: 400 for Kinetics.
      eps: of the batch norms; see EPSILONS.
    """

    num_classes: int = 400
    eps: float = EPSILONS["tensorflow"]

    @nn.compact
    def __call__(self, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Classify videos.

        Args:
          video: `(B, T, H, W, 3)` in [-1, 1], T at least 9, H and W at least 193.

        Returns: the logits `(B, num_classes)`, on which the Fréchet video distance is taken, and the pooled features
          `(B, 1024)` before them; both averaged over time (and the features over positions).
        """

        def unit(features, kernel, stride, name):
            return Unit3D(features, kernel, stride, self.eps, name=name)

        x = unit(64, 7, 2, "Conv3d_1a_7x7")(video)
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        x = unit(64, 1, 1, "Conv3d_2b_1x1")(x)
        x = unit(192, 3, 1, "Conv3d_2c_3x3")(x)
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        for name, widths in _MIXED.items():
            if name == "4b":
                x = max_pool(x, (3, 3, 3), (2, 2, 2))
            elif name == "5b":
                x = max_pool(x, (2, 2, 2), (2, 2, 2))
            x = Mixed(widths, self.eps, name=f"Mixed_{name}")(x)
        # The pooling window is the whole frame at 224 pixels; smaller frames, in tests, are averaged whole as well.
        x = nn.avg_pool(x, (2, min(7, x.shape[2]), min(7, x.shape[3])))
        logits = Logits(self.num_classes, name="logits")(x)
        return logits.mean(axis=(1, 2, 3)), x.mean(axis=(1, 2, 3))


def preprocess(video: jax.Array) -> jax.Array:
    """Resize videos, uint8 `(B, T, H, W, 3)`, to `(B, T, 224, 224, 3)` in [-1, 1] whatever the aspect, as FVD does."""
    return resize_bilinear(unit_range(video), (SIDE, SIDE))


def public_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the tensors of a public I3D as in this module; surplus names stay as they are."""

    def rename(name: str) -> str:
        name = re.sub(r"^(module|model|i3d)\.", "", name)
        name = re.sub(r"^(conv3d_\d\w_\dx\d|mixed_\d\w)\.", lambda match: match[0].capitalize(), name)
        name = name.replace(".batch3d.", ".bn.")
        name = re.sub(r"^(Conv3d_0c_1x1)\.", "logits.", name)
        name = re.sub(r"\.branch_?0\.", ".b0.", name)
        name = re.sub(r"\.branch_([12])\.([01])\.", lambda m: f".b{m[1]}{'ab'[int(m[2])]}.", name)
        return re.sub(r"\.branch_3\.1\.", ".b3b.", name)

    renamed = {rename(name): tensor for name, tensor in tensors.items()}
    for name in [name for name in renamed if name.endswith(".bn.running_mean")]:
        scale = name.replace("running_mean", "weight")
        renamed.setdefault(scale, np.ones_like(renamed[name]))  # trained without a scale
    return renamed
