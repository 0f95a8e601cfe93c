"""Video discriminator: a spatial patch head on single frames and a spatio-temporal patch head on clips.

Both are PatchGANs (Isola et al. 2017): strided convolutions to a map of logits, each judging one patch. The
spatio-temporal head judges several frames at once, hence motion and flicker (as in the two discriminators of TGAN-v2
and DVD-GAN).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from videogen_jax.models.layers import group_norm
from videogen_jax.models.ops.convolution import convolve_clips, convolve_images


class PatchHead(nn.Module):
    """Strided patch discriminator: `(N, ..., H, W, C)` -> logits `(N, ..., h, w, 1)`.

    Attributes:
      channels: of the convolutions of stride two.
      temporal: 3D kernels on clips instead of 2D kernels on frames.
      norm_num_groups: of the group norms.
    """

    channels: Sequence[int]
    temporal: bool
    norm_num_groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = (3, 4, 4) if self.temporal else (4, 4)

        def conv(
            x: jax.Array, features: int, kernel: tuple[int, ...], strides: tuple[int, ...], name: str
        ) -> jax.Array:
            convolution = convolve_clips if self.temporal else convolve_images
            layer = nn.Conv(features, kernel, strides, dtype=self.dtype, conv_general_dilated=convolution, name=name)
            return layer(x)

        for i, features in enumerate(self.channels):
            strides = (1, 2, 2) if self.temporal else (2, 2)
            x = conv(x, features, kernel, strides, f"conv_{i}")
            if i > 0:
                x = group_norm(self.norm_num_groups, 1e-6, self.dtype, f"norm_{i}")(x)
            x = nn.leaky_relu(x, 0.2)
        kernel = (3, 3, 3) if self.temporal else (3, 3)
        return conv(x, 1, kernel, (1,) * len(kernel), "conv_out")


class VideoDiscriminator(nn.Module):
    """Logits that the patches of a video are real.

    Attributes:
      channels: of the convolutions of stride two of both heads.
      norm_num_groups: of the group norms.
    """

    channels: Sequence[int] = (64, 128, 256)
    norm_num_groups: int = 32
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, video: jax.Array) -> dict[str, jax.Array]:
        """video: `(B, T, H, W, 3)` in [-1, 1].

        Returns: float32 logits `spatial` `(B*T, h, w, 1)` and `temporal` `(B, T, h, w, 1)`.
        """
        frames = video.reshape(-1, *video.shape[2:])
        head = {"channels": tuple(self.channels), "norm_num_groups": self.norm_num_groups, "dtype": self.dtype}
        logits = {
            "spatial": PatchHead(temporal=False, **head, name="spatial")(frames),
            "temporal": PatchHead(temporal=True, **head, name="temporal")(video),
        }
        return jax.tree.map(lambda x: x.astype(jnp.float32), logits)
