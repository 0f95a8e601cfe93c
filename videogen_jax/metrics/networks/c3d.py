"""C3D (Tran et al. 2015), trained on Sports-1M and then UCF-101: the classifier of the Inception score on video."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.metrics.networks.layers import resize_bilinear

FRAMES = 16
SIDE = 112
MEAN_NAME = "mean"
# layer -> width, with the pooling window that follows it
_LAYERS = (
    ("conv1a", 64, (1, 2, 2)),
    ("conv2a", 128, (2, 2, 2)),
    ("conv3a", 256, None),
    ("conv3b", 256, (2, 2, 2)),
    ("conv4a", 512, None),
    ("conv4b", 512, (2, 2, 2)),
    ("conv5a", 512, None),
    ("conv5b", 512, (2, 2, 2)),
)


class C3D(nn.Module):
    """Eight 3x3x3 convolutions and three linear layers, `conv1a` to `fc8` as the Caffe model names them.

    Attributes:
      num_classes: 101 for UCF-101.
      hidden: width of `fc6` and `fc7`.
    """

    num_classes: int = 101
    hidden: int = 4096

    @nn.compact
    def __call__(self, video: jax.Array) -> jax.Array:
        """Return logits `(B, num_classes)` of videos `(B, 16, 112, 112, 3)` from `preprocess`."""
        x = video
        for name, features, pool in _LAYERS:
            x = nn.relu(nn.Conv(features, (3, 3, 3), padding=1, name=name)(x))
            if pool:
                # Caffe rounds up, so the last pooling takes 7x7 places to 4x4.
                x = nn.max_pool(x, pool, pool, padding=[(0, -n % p) for n, p in zip(x.shape[1:4], pool, strict=True)])
        x = jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)  # the weights of fc6 have the channels first
        for name in ("fc6", "fc7"):
            x = nn.relu(nn.Dense(self.hidden, name=name)(x))
        return nn.Dense(self.num_classes, name="fc8")(x)


def preprocess(video: jax.Array, mean: jax.Array) -> jax.Array:
    """Preprocess videos as TGAN's score does (Saito et al. 2017).

    Args:
      video: uint8 `(B, 16, H, W, 3)` in RGB.
      mean: `(16, 112, 112, 3)` in BGR and [0, 255], the centre crop of the training set's mean cube.

    Returns: float32 `(B, 16, 112, 112, 3)` in BGR, minus the mean.
    """
    # As there, [0, 255] is mapped to [-1, 1], and [-1, 1] to [0, 256].
    scaled = (video.astype(jnp.float32) / 127.5 - 1.0) * 128.0 + 128.0
    return resize_bilinear(scaled[..., ::-1], (SIDE, SIDE), align_corners=True) - mean


def read_mean(tensor: np.ndarray) -> np.ndarray:
    """Convert the mean of a weights file, `(3, 16, 128, 171)`, `(3, 16, 112, 112)` or `(3,)`, to `(16, 112, 112, 3)`.

    As published it is BGR, channels first and 128 by 171 pixels, of which the protocol takes rows and columns 8 to 120.

    Raises:
      ValueError: for another shape.
    """
    mean = np.asarray(tensor, np.float32)
    mean = mean[0] if mean.ndim == 5 and mean.shape[0] == 1 else mean
    if mean.shape == (3,):
        return np.broadcast_to(mean, (FRAMES, SIDE, SIDE, 3))
    if mean.shape == (3, FRAMES, 128, 171):
        mean = mean[:, :, 8 : 8 + SIDE, 8 : 8 + SIDE]
    if mean.shape != (3, FRAMES, SIDE, SIDE):
        raise ValueError(f"C3D's mean has shape {mean.shape}, but takes (3, 16, 128, 171), (3, 16, 112, 112) or (3,)")
    return np.ascontiguousarray(mean.transpose(1, 2, 3, 0))


def public_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the tensors of Chainer (`conv1a/W`, `conv1a/b`) and of PyTorch ports (`conv1`) as in this module."""
    alone = {"conv1": "conv1a", "conv2": "conv2a"}
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.replace("/", ".").rpartition(".")
        leaf = {"W": "weight", "b": "bias"}.get(leaf, leaf)
        layer = layer.removeprefix("module.")
        renamed[f"{alone.get(layer, layer)}.{leaf}" if layer else leaf] = tensor
    return renamed
