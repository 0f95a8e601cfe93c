"""Inception-v3 of the Fréchet inception distance (Szegedy et al. 2016; Heusel et al. 2017).

The weights are those of TensorFlow's `inception-2015-12-05` graph, as pytorch-fid publishes them
(`pt_inception-2015-12-05-6726825d.pth`); torch-fidelity's file has the same names and tensors. The graph differs from
torchvision's Inception-v3 in two ways: average pooling does not count the padding, and the last block has a maximum
where the paper has an average.
"""

import re
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.metrics.networks.layers import FrozenBatchNorm, resize_bilinear, unit_range

SIDE = 299
_EPS = 1e-3


class BasicConv2d(nn.Module):
    """Convolution without bias, batch norm, ReLU: `(B, H, W, C)`; padding "VALID" unless `pad`."""

    features: int
    kernel: tuple[int, int]
    stride: int = 1
    pad: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        padding = [(k // 2, k // 2) for k in self.kernel] if self.pad else "VALID"
        strides = (self.stride, self.stride)
        x = nn.Conv(self.features, self.kernel, strides, padding=padding, use_bias=False, name="conv")(x)
        return nn.relu(FrozenBatchNorm(_EPS, name="bn")(x))


def _same(features: int, kernel: int | tuple[int, int], name: str) -> BasicConv2d:
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    return BasicConv2d(features, size, pad=True, name=name)


def _average(x: jax.Array) -> jax.Array:
    return nn.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=False)


def _halve(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), (2, 2))


class InceptionA(nn.Module):
    """1x1, 5x5 and twice 3x3 beside a pooling branch."""

    pool_features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        five = _same(64, 5, "branch5x5_2")(_same(48, 1, "branch5x5_1")(x))
        three = _same(96, 3, "branch3x3dbl_2")(_same(64, 1, "branch3x3dbl_1")(x))
        three = _same(96, 3, "branch3x3dbl_3")(three)
        pooled = _same(self.pool_features, 1, "branch_pool")(_average(x))
        return jnp.concatenate([_same(64, 1, "branch1x1")(x), five, three, pooled], axis=-1)


class InceptionB(nn.Module):
    """Halves the resolution: 35 to 17."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = BasicConv2d(384, (3, 3), 2, name="branch3x3")(x)
        three = _same(96, 3, "branch3x3dbl_2")(_same(64, 1, "branch3x3dbl_1")(x))
        three = BasicConv2d(96, (3, 3), 2, name="branch3x3dbl_3")(three)
        return jnp.concatenate([one, three, _halve(x)], axis=-1)


class InceptionC(nn.Module):
    """7x7 convolutions factorized into 1x7 and 7x1."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        row, column = (1, 7), (7, 1)
        seven = _same(self.width, 1, "branch7x7_1")(x)
        for i, (features, kernel) in enumerate(((self.width, row), (192, column)), start=2):
            seven = _same(features, kernel, f"branch7x7_{i}")(seven)
        double = _same(self.width, 1, "branch7x7dbl_1")(x)
        for i, (features, kernel) in enumerate(
            ((self.width, column), (self.width, row), (self.width, column), (192, row)), start=2
        ):
            double = _same(features, kernel, f"branch7x7dbl_{i}")(double)
        pooled = _same(192, 1, "branch_pool")(_average(x))
        return jnp.concatenate([_same(192, 1, "branch1x1")(x), seven, double, pooled], axis=-1)


class InceptionD(nn.Module):
    """Halves the resolution: 17 to 8."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = BasicConv2d(320, (3, 3), 2, name="branch3x3_2")(_same(192, 1, "branch3x3_1")(x))
        seven = _same(192, 1, "branch7x7x3_1")(x)
        seven = _same(192, (7, 1), "branch7x7x3_3")(_same(192, (1, 7), "branch7x7x3_2")(seven))
        seven = BasicConv2d(192, (3, 3), 2, name="branch7x7x3_4")(seven)
        return jnp.concatenate([three, seven, _halve(x)], axis=-1)


class InceptionE(nn.Module):
    """The widest blocks; the last of the network pools by the maximum."""

    max_pool: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def split(y, name):
            return [_same(384, (1, 3), f"{name}a")(y), _same(384, (3, 1), f"{name}b")(y)]

        three = split(_same(384, 1, "branch3x3_1")(x), "branch3x3_2")
        double = _same(384, 3, "branch3x3dbl_2")(_same(448, 1, "branch3x3dbl_1")(x))
        double = split(double, "branch3x3dbl_3")
        pooled = nn.max_pool(x, (3, 3), padding=((1, 1), (1, 1))) if self.max_pool else _average(x)
        pooled = _same(192, 1, "branch_pool")(pooled)
        return jnp.concatenate([_same(320, 1, "branch1x1")(x), *three, *double, pooled], axis=-1)


class InceptionV3(nn.Module):
    """Images `(B, H, W, 3)` in [-1, 1], H and W at least 75 -> the pooled features `(B, 2048)`, and logits.

    The logits `(B, 1008)` are those of the Inception score on images.
    """

    num_classes: int = 1008

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = BasicConv2d(32, (3, 3), 2, name="Conv2d_1a_3x3")(x)
        x = BasicConv2d(32, (3, 3), name="Conv2d_2a_3x3")(x)
        x = _halve(_same(64, 3, "Conv2d_2b_3x3")(x))
        x = BasicConv2d(80, (1, 1), name="Conv2d_3b_1x1")(x)
        x = _halve(BasicConv2d(192, (3, 3), name="Conv2d_4a_3x3")(x))
        for name, pool_features in (("5b", 32), ("5c", 64), ("5d", 64)):
            x = InceptionA(pool_features, name=f"Mixed_{name}")(x)
        x = InceptionB(name="Mixed_6a")(x)
        for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            x = InceptionC(width, name=f"Mixed_{name}")(x)
        x = InceptionD(name="Mixed_7a")(x)
        x = InceptionE(max_pool=False, name="Mixed_7b")(x)
        x = InceptionE(max_pool=True, name="Mixed_7c")(x)
        features = x.mean(axis=(1, 2))
        return features, nn.Dense(self.num_classes, name="fc")(features)


def preprocess(images: jax.Array) -> jax.Array:
    """Resize images, uint8 `(B, H, W, 3)`, to `(B, 299, 299, 3)` in [-1, 1] as pytorch-fid does.

    TensorFlow's own resize of that time aligned the top left corner and not the pixels' centres; torch-fidelity
    reproduces it, pytorch-fid does not. The scores differ a little, so only those of one of the two are comparable.
    """
    return resize_bilinear(unit_range(images), (SIDE, SIDE))


def public_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the tensors of a public file as `naming.from_public` names them for this module.

    There `branch3x3dbl_1` is an entry of a list, `branch3x3dbl.1`. The auxiliary classifier of other Inception-v3 files
    is left out.
    """
    return {
        re.sub(r"\.(branch\dx\ddbl)_(\d)\.", r".\1.\2.", name): tensor
        for name, tensor in tensors.items()
        if not name.startswith("AuxLogits.")
    }
