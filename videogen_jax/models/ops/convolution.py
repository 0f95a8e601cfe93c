"""Convolutions that `flax.linen.Conv` takes as its `conv_general_dilated`, in place of JAX's.

`convolve` and `convolve_upsampled` are faster; `convolve_images` and `convolve_clips` are partitioned correctly by XLA.
"""

import functools

import jax
import jax.numpy as jnp

from videogen_jax.models.partitioning import constrain_images

# Output positions and features below which patches times a matrix are faster, on a CPU and (the first two) anywhere.
_FEW_POSITIONS, _FEW_POSITIONS_STRIDED = 4, 64
_SMALL_MAP, _SMALL_MAP_FEATURES = 64, 128
_MEDIUM_MAP, _MEDIUM_MAP_FEATURES = 256, 512


def convolve(x: jax.Array, kernel: jax.Array, strides, padding, **kwargs) -> jax.Array:
    """2D convolution that computes small maps as patches times a matrix.

    XLA's CPU backend is slow on few positions of many channels: at 8x8 positions of 1,280 channels the product is 3.6
    times as fast, at 16x16 of them 1.2 times (and 1.6 times with the backward pass), on maps of 2x2 and smaller up to
    twenty times, and eight times in the gradient of a convolution of stride two.

    Args:
      x: `(N, H, W, C)`.
      kernel: `(kh, kw, C, features)`.
      strides: two numbers, or one for both axes.
      padding: two pairs of numbers.
      **kwargs: the other arguments of `conv_general_dilated`; no dilation and no channel groups.

    Returns: `(N, H', W', features)`.
    """
    (_, height, width, _), (kh, kw, _, features) = x.shape, kernel.shape
    sy, sx = (strides, strides) if isinstance(strides, int) else strides
    out_h = (height + sum(padding[0]) - kh) // sy + 1
    out_w = (width + sum(padding[1]) - kw) // sx + 1

    x = constrain_images(x)

    def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (sy, sx), padding, **kwargs)

    def by_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        ends = ((out_h - 1) * sy + 1, (out_w - 1) * sx + 1)
        patches = [x[:, i : i + ends[0] : sy, j : j + ends[1] : sx] for i in range(kh) for j in range(kw)]
        return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, features)

    positions = out_h * out_w
    if positions <= (_FEW_POSITIONS if sy == sx == 1 else _FEW_POSITIONS_STRIDED):
        return by_patches(x, kernel)
    small = positions <= _SMALL_MAP and features >= _SMALL_MAP_FEATURES
    medium = positions <= _MEDIUM_MAP and features >= _MEDIUM_MAP_FEATURES
    if kh * kw > 1 and (small or medium):
        return jax.lax.platform_dependent(x, kernel, cpu=by_patches, default=direct)
    return direct(x, kernel)


def convolve_upsampled(x: jax.Array, kernel: jax.Array, strides, padding, **kwargs) -> jax.Array:
    """3x3 convolution, padded by one, of the nearest-neighbour upsampling of x by two, without the upsampled array.

    A window of three over doubled rows covers two rows of x, one of them twice; so each of the four phases of the
    output is a 2x2 convolution of x whose kernel holds sums of the 3x3 one's: four ninths of the work (the layer is
    Odena et al. 2016's; the phases are those of Shi et al. 2016, section 3).

    Args:
      x: `(N, H, W, C)`.
      kernel: `(3, 3, C, features)`.
      strides, padding: as `flax.linen.Conv` passes them, one each; unused.
      **kwargs: as in `convolve`.

    Returns: `(N, 2 * H, 2 * W, features)`.
    """
    del strides, padding
    return _convolve_upsampled(tuple(sorted(kwargs.items())), x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve_upsampled(settings: tuple, x: jax.Array, kernel: jax.Array) -> jax.Array:
    (n, h, w, c), features = x.shape, kernel.shape[-1]

    def phases(kernel: jax.Array) -> jax.Array:
        """Split the first axis, of three, into (phase, tap), each of two."""
        first, second, third = kernel
        return jnp.stack([jnp.stack([first, second + third]), jnp.stack([first + second, third])])

    # (row phase, row tap, column phase, column tap, C, features) -> taps first, phases beside the features
    kernels = jax.vmap(jax.vmap(phases))(phases(kernel)).transpose(1, 3, 4, 0, 2, 5)
    together = convolve(x, kernels.reshape(2, 2, c, 4 * features), 1, ((1, 1), (1, 1)), **dict(settings))
    together = together.reshape(n, h + 1, w + 1, 2, 2, features)
    rows = [jnp.stack([together[:, i : i + h, j : j + w, i, j] for j in (0, 1)], axis=3) for i in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, features)


def _convolve_upsampled_forward(settings, x, kernel):
    return _convolve_upsampled(settings, x, kernel), (x, kernel)


def _convolve_upsampled_backward(settings, residuals, grad):
    """Differentiate the plain form: on a CPU the gradients of the phases take twice as long."""

    def plain(x, kernel):
        n, h, w, c = x.shape
        x = jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)
        return convolve(x, kernel, 1, ((1, 1), (1, 1)), **dict(settings))

    return jax.vjp(plain, *residuals)[1](grad)


_convolve_upsampled.defvjp(_convolve_upsampled_forward, _convolve_upsampled_backward)


def convolve_images(x: jax.Array, kernel: jax.Array, strides, padding, **kwargs) -> jax.Array:
    """2D convolution of images `(N, H, W, C)`, each of which lies whole on one device (`constrain_images`)."""
    return jax.lax.conv_general_dilated(constrain_images(x), kernel, strides, padding, **kwargs)


def convolve_clips(x: jax.Array, kernel: jax.Array, strides, padding, **kwargs) -> jax.Array:
    """3D convolution of clips as three 2D convolutions of their frames.

    XLA (as of jaxlib 0.10.2) sums the gradient of a 3D convolution's kernel twice where both frames and channels are
    spread over devices.

    Args:
      x: `(B, T, H, W, C)`.
      kernel: `(3, kh, kw, C, features)`.
      strides: over frames, rows and columns; the first is 1.
      padding: "SAME", or three pairs of numbers, the first (1, 1).
      **kwargs: the other arguments of `conv_general_dilated`; no dilation and no channel groups.

    Returns: `(B, T, H', W', features)`.
    """
    padding = padding if isinstance(padding, str) else padding[1:]
    settings = {**kwargs, "dimension_numbers": ("NHWC", "HWIO", "NHWC"), "lhs_dilation": None, "rhs_dilation": None}
    frames = x.reshape(-1, *x.shape[2:])
    past, same, future = (convolve_images(frames, k, strides[1:], padding, **settings) for k in kernel)
    past, same, future = (y.reshape(*x.shape[:2], *y.shape[1:]) for y in (past, same, future))
    unpadded = ((0, 0),) * 3
    past = jnp.pad(past[:, :-1], ((0, 0), (1, 0), *unpadded))
    return same + past + jnp.pad(future[:, 1:], ((0, 0), (0, 1), *unpadded))
