"""VGG-16's convolutional features, for a perceptual loss with weights that the user brings (Johnson et al. 2016)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from videogen_jax.models.layers import conv3x3

# torchvision's `vgg16().features`: index of each convolution -> its channels; a 2x2 max pool precedes 5, 10 and 17.
CONVOLUTIONS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 17: 512, 19: 512, 21: 512}
POOL_BEFORE = (5, 10, 17)
TAPS = (2, 7, 14, 21)  # relu1_2, relu2_2, relu3_3, relu4_3
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class VGG16Features(nn.Module):
    """The feature maps after relu1_2, relu2_2, relu3_3 and relu4_3.

    The parameters are torchvision's `features.<i>.weight` and `.bias`, named `features_<i>`.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, frames: jax.Array) -> list[jax.Array]:
        """frames: `(N, H, W, 3)` in [-1, 1]; returns four maps `(N, H / s, W / s, C)`, s = 1, 2, 4, 8."""
        x = (0.5 * frames + 0.5 - jnp.asarray(MEAN)) / jnp.asarray(STD)
        taps = []
        for index, features in CONVOLUTIONS.items():
            if index in POOL_BEFORE:
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            x = nn.relu(conv3x3(features, self.dtype, f"features_{index}")(x))
            if index in TAPS:
                taps.append(x)
        return taps


def perceptual_distance(a: list[jax.Array], b: list[jax.Array]) -> jax.Array:
    """Sum over the maps of the mean squared difference of channel-normalised features (LPIPS without its weights)."""

    def unit(x):  # not x / norm(x): the norm has no gradient at zero, a common value of rectified features
        return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-10)

    return sum(jnp.mean(jnp.sum((unit(x) - unit(y)) ** 2, axis=-1)) for x, y in zip(a, b, strict=True))
