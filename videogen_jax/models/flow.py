"""Flow-based interpolation of latent frames (VideoGen, section 3.3; after Super SloMo, Jiang et al. 2018).

Flow between neighbouring frames is estimated in both directions from low-resolution latents and upsampled. It gives
the flows from any time in between to both neighbours, which are warped to that time, fused by a visibility mask and
refined; the curvature of the latents over four frames corrects the assumption of uniform motion. All heads start at
zero, so an untrained upsampler interpolates between the frames, linearly from two and cubically from four.

A flow `(..., 2)` is (dx, dy) in positions of its own grid, x to the right and y down: the flow from a to b at a
position of a is the displacement of its content in b.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros as zeros_init

from videogen_jax.models.layers import Downsample, ResnetBlock, Upsample, conv3x3, group_norm


def warp(x: jax.Array, flow: jax.Array) -> jax.Array:
    """Warp backward: position p of the result is x at p + flow(p), bilinear; beyond the border x is repeated.

    Args:
      x: `(N, H, W, C)`.
      flow: `(N, H, W, 2)`.

    Returns: `(N, H, W, C)` in x's dtype; at whole-numbered flows exactly the values of x.
    """
    n, h, w, c = x.shape
    flow = flow.astype(jnp.float32)
    px = jnp.clip(jnp.arange(w, dtype=jnp.float32) + flow[..., 0], 0, w - 1)
    py = jnp.clip(jnp.arange(h, dtype=jnp.float32)[:, None] + flow[..., 1], 0, h - 1)
    # At most one short of the border, so that the neighbour exists; at the border the neighbour's weight is one.
    left = jnp.clip(jnp.floor(px), 0, max(w - 2, 0))
    top = jnp.clip(jnp.floor(py), 0, max(h - 2, 0))
    wx, wy = (px - left)[..., None].astype(x.dtype), (py - top)[..., None].astype(x.dtype)
    left, top = left.astype(jnp.int32), top.astype(jnp.int32)
    right, bottom = jnp.minimum(left + 1, w - 1), jnp.minimum(top + 1, h - 1)
    flattened = x.reshape(n, h * w, c)

    def gather(y, x):
        """The values at whole positions `(N, H, W)`."""
        return jax.vmap(lambda values, index: values[index])(flattened, y * w + x)

    above = gather(top, left) * (1 - wx) + gather(top, right) * wx
    below = gather(bottom, left) * (1 - wx) + gather(bottom, right) * wx
    return above * (1 - wy) + below * wy


def intermediate_flows(flow_01: jax.Array, flow_10: jax.Array, t: jax.Array | float) -> tuple[jax.Array, jax.Array]:
    """Approximate the flows from the frame at time t to its neighbours at 0 and 1 (Super SloMo, equation 4).

    Args:
      flow_01, flow_10: `(N, H, W, 2)`, from 0 to 1 and from 1 to 0.
      t: in (0, 1), a number or an array that broadcasts, such as `(N, 1, 1, 1)`.

    Returns: the flows from t to 0 and from t to 1, `(N, H, W, 2)` each.
    """
    flow_t0 = -(1 - t) * t * flow_01 + t**2 * flow_10
    flow_t1 = (1 - t) ** 2 * flow_01 - t * (1 - t) * flow_10
    return flow_t0, flow_t1


def upsample_flow(flow: jax.Array, factor: int) -> jax.Array:
    """Upsample a flow `(N, h, w, 2)` to a grid `factor` times as fine, in positions of that grid: bilinear, scaled."""
    if factor == 1:
        return flow
    n, h, w, c = flow.shape
    return factor * jax.image.resize(flow, (n, factor * h, factor * w, c), "bilinear")


def downsample_average(x: jax.Array, factor: int) -> jax.Array:
    """Average over squares: `(N, H, W, C)` -> `(N, H / factor, W / factor, C)`.

    Raises:
      ValueError: `factor` does not divide H and W.
    """
    if factor == 1:
        return x
    n, h, w, c = x.shape
    if h % factor or w % factor:
        raise ValueError(f"latents of {h}x{w} must have a height and width divisible by flow_downsample {factor}")
    return x.reshape(n, h // factor, factor, w // factor, factor, c).mean((2, 4))


def fuse(warped_0: jax.Array, warped_1: jax.Array, visibility: jax.Array, t: jax.Array | float) -> jax.Array:
    """Average the warped neighbours, weighted by nearness in time and visibility (Super SloMo, equation 5).

    Args:
      warped_0, warped_1: `(N, H, W, C)`, the frames at 0 and 1 warped to t.
      visibility: `(N, H, W, 1)` in (0, 1): 1 where the content at t is visible at 0 only, 0 where at 1 only.
      t: in (0, 1), a number or an array that broadcasts.

    Returns: `(N, H, W, C)`.
    """
    weight_0, weight_1 = (1 - t) * visibility, t * (1 - visibility)
    return (weight_0 * warped_0 + weight_1 * warped_1) / (weight_0 + weight_1)


def curvature(frames: jax.Array) -> jax.Array:
    """Compute second differences in time of `(B, T, ...)`, same shape.

    The first and last frame take their neighbour's; of two frames they are zero.
    """
    if frames.shape[1] < 3:
        return jnp.zeros_like(frames)
    second = frames[:, :-2] - 2 * frames[:, 1:-1] + frames[:, 2:]
    return jnp.concatenate([second[:, :1], second, second[:, -1:]], axis=1)


def cubic_weights(t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the weights of the curvatures at 0 and 1 in cubic interpolation at t (Everett's formula, third order).

    With them `(1 - t) x_0 + t x_1 + w_0 c_0 + w_1 c_1` is the cubic through four equally spaced frames.

    Args:
      t: in (0, 1), any shape.

    Returns: w_0 and w_1, of t's shape.
    """
    s = 1 - t
    return s * (s**2 - 1) / 6, t * (t**2 - 1) / 6


class ConvPyramid(nn.Module):
    """Convolutional encoder-decoder with skip connections: `(N, H, W, C)` -> `(N, H, W, widths[0])`, any H and W.

    Attributes:
      widths: channels of each level; each after the first halves the resolution.
      groups: of the group norms; they divide the widths.
    """

    widths: tuple[int, ...]
    groups: int = 8
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def block(features, name):
            return ResnetBlock(features, self.groups, dtype=self.dtype, name=name)

        x = conv3x3(self.widths[0], self.dtype, "conv_in")(x)
        skips = []
        for i, width in enumerate(self.widths):
            if i:
                x = Downsample(width, dtype=self.dtype, name=f"downsamplers_{i}")(x)
            x = block(width, f"encoder_{i}")(x)
            skips.append(x)
        for i in reversed(range(len(self.widths) - 1)):
            skip = skips[i]
            x = Upsample(self.widths[i], dtype=self.dtype, name=f"upsamplers_{i}")(x)
            x = x[:, : skip.shape[1], : skip.shape[2]]  # an odd size was rounded up on the way down
            x = block(self.widths[i], f"decoder_{i}")(jnp.concatenate([x, skip], axis=-1))
        return nn.silu(group_norm(self.groups, 1e-5, self.dtype, "norm_out")(x))


class FlowNetwork(nn.Module):
    """Bidirectional flow between two neighbouring latent frames.

    Attributes:
      widths, groups: of the `ConvPyramid`.
      feature_channels: channels of the features that the refinement gets besides the flow.
    """

    widths: tuple[int, ...] = (32, 64, 96)
    feature_channels: int = 8
    groups: int = 8
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
        """frames: `(N, h, w, K * C)`: frame 0, frame 1 and, with K = 4, the frames before and after, as channels.

        Returns: the flow `(N, h, w, 4)` float32, from 0 to 1 and from 1 to 0, zero until trained; features
        `(N, h, w, feature_channels)`.
        """
        h = ConvPyramid(self.widths, self.groups, self.dtype, name="pyramid")(frames)
        flow = conv3x3(4, self.dtype, "flow_out", kernel_init=zeros_init)(h).astype(jnp.float32)
        return flow, conv3x3(self.feature_channels, self.dtype, "feature_out")(h)


class RefinementNetwork(nn.Module):
    """Corrections of what warping alone gets wrong at time t; all are zero until trained.

    Attributes:
      widths, groups: of the `ConvPyramid`.
    """

    widths: tuple[int, ...] = (32, 64)
    groups: int = 8
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, channels: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """x: `(N, H, W, K)`: warped frames, frames, flows, time and features as channels; channels: C of the latents.

        Returns: logits of the visibility `(N, H, W, 1)`, corrections of the flows from t to 0 and to 1 `(N, H, W, 4)`,
        relative corrections of the curvatures' weights `(N, H, W, 2)`, and a residual `(N, H, W, C)`.
        """
        h = ConvPyramid(self.widths, self.groups, self.dtype, name="pyramid")(x)

        def head(features, name):
            return conv3x3(features, self.dtype, name, kernel_init=zeros_init)(h)

        flow = head(4, "flow_out").astype(jnp.float32)
        return head(1, "visibility_out"), flow, head(2, "curvature_out"), head(channels, "residual_out")


class UpsamplerAux(NamedTuple):
    """Intermediate results of `TemporalUpsampler` for P = T - 1 pairs of neighbours and K times between each.

    Attributes:
      flow_01, flow_10: `(B, P, H, W, 2)`.
      flow_t0, flow_t1: `(B, P, K, H, W, 2)`, after the refinement's correction.
      visibility: `(B, P, K, H, W, 1)`.
      warped_0, warped_1: `(B, P, K, H, W, C)`.
    """

    flow_01: jax.Array
    flow_10: jax.Array
    flow_t0: jax.Array
    flow_t1: jax.Array
    visibility: jax.Array
    warped_0: jax.Array
    warped_1: jax.Array


def intermediate_times(times: int | Sequence[float]) -> tuple[float, ...]:
    """Return the times between two frames that are to be interpolated.

    Args:
      times: a factor F, for 1/F, 2/F ... (F - 1)/F, or the times themselves.

    Raises:
      ValueError: the factor is below 2, or the times do not rise strictly between 0 and 1.
    """
    if isinstance(times, int):
        if times < 2:
            raise ValueError(f"the factor of temporal upsampling must be at least 2, not {times}")
        return tuple(k / times for k in range(1, times))
    times = tuple(float(t) for t in times)
    if not times or any(b <= a for a, b in zip((0.0, *times), (*times, 1.0), strict=True)):
        raise ValueError(f"times must rise strictly between 0 and 1, not {times}")
    return times


class TemporalUpsampler(nn.Module):
    """Interpolates frames between the frames of latent videos.

    Attributes:
      flow_widths, refine_widths, groups: of the two networks; groups divides the widths.
      feature_channels: channels of the features from the flow network to the refinement.
      flow_downsample: flow is estimated from latents averaged over squares of this side, 1 or more.
      context_frames: also use the frame before and the frame after each pair (at the ends of the video, the pair's own
        frame again): as inputs of the networks, and for an interpolation that starts as a cubic instead of linear.
      refine: False leaves out everything after the warping, for ablations: the neighbours are warped by the flow
        between them and weighted by nearness in time, without corrections, visibility, curvature or residual. The flow
        network and its parameters are the same.
    """

    flow_widths: tuple[int, ...] = (32, 64, 96)
    refine_widths: tuple[int, ...] = (32, 64)
    feature_channels: int = 8
    flow_downsample: int = 1
    context_frames: bool = True
    refine: bool = True
    groups: int = 8
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, frames: jax.Array, times: int | Sequence[float] = 2, return_aux: bool = False
    ) -> jax.Array | tuple[jax.Array, UpsamplerAux]:
        """Interpolate K frames between each two neighbours.

        Args:
          frames: `(B, T, H, W, C)`, T >= 2, latents of unit variance.
          times: an upsampling factor F (then K = F - 1), or K rising times between 0 and 1.
          return_aux: also return flows, visibility and warped frames.

        Returns: `(B, (T - 1) * (K + 1) + 1, H, W, C)` in the dtype of frames, which are among them unchanged; with
        `return_aux` also the `UpsamplerAux`.

        Raises:
          ValueError: for fewer than two frames, times that do not rise within (0, 1), or sizes that `flow_downsample`
            does not divide.
        """
        if frames.ndim != 5 or frames.shape[1] < 2:
            raise ValueError(f"frames must have shape (B, T, H, W, C) with T of at least 2, not {frames.shape}")
        times = intermediate_times(times)
        b, frame_count, h, w, c = frames.shape
        pairs, k = frame_count - 1, len(times)

        def flat(x):
            """`(B, P, ...)` -> `(B*P, ...)`: pairs as a batch."""
            return x.reshape(b * pairs, *x.shape[2:])

        def at_each_time(x):
            """`(B*P, ...)` -> `(B*P*K, ...)`."""
            return jnp.repeat(x, k, axis=0)

        # Flow between the frames of each pair.
        x0, x1 = flat(frames[:, :-1]), flat(frames[:, 1:])
        inputs = [x0, x1]
        if self.context_frames:
            inputs.append(flat(jnp.concatenate([frames[:, :1], frames[:, :-2]], axis=1)))
            inputs.append(flat(jnp.concatenate([frames[:, 2:], frames[:, -1:]], axis=1)))
        inputs = jnp.concatenate(inputs, axis=-1)  # (B*P, H, W, 2 C or 4 C)

        factor = self.flow_downsample
        network = FlowNetwork(self.flow_widths, self.feature_channels, self.groups, self.dtype, name="flow")
        flow, features = network(downsample_average(inputs, factor))
        flow_01, flow_10 = upsample_flow(flow[..., :2], factor), upsample_flow(flow[..., 2:], factor)
        features = jax.image.resize(features, (b * pairs, h, w, self.feature_channels), "bilinear")

        # Both frames warped to each time.
        t = jnp.tile(jnp.asarray(times, jnp.float32), b * pairs)[:, None, None, None]
        flow_t0, flow_t1 = intermediate_flows(at_each_time(flow_01), at_each_time(flow_10), t)
        x0, x1 = at_each_time(x0), at_each_time(x1)
        warped_0, warped_1 = warp(x0, flow_t0), warp(x1, flow_t1)
        visibility = jnp.full((*x0.shape[:-1], 1), 0.5)
        if self.refine:  # corrected flows, and warped again
            refinement = RefinementNetwork(self.refine_widths, self.groups, self.dtype, name="refinement")
            evidence = [warped_0, warped_1, at_each_time(inputs), flow_t0, flow_t1]
            evidence += [jnp.broadcast_to(t, (*x0.shape[:-1], 1)), at_each_time(features)]
            evidence = jnp.concatenate([e.astype(self.dtype) for e in evidence], axis=-1)
            logits, correction, gain, residual = refinement(evidence, c)
            flow_t0, flow_t1 = flow_t0 + correction[..., :2], flow_t1 + correction[..., 2:]
            warped_0, warped_1 = warp(x0, flow_t0), warp(x1, flow_t1)
            visibility = nn.sigmoid(logits.astype(jnp.float32))
        between = fuse(warped_0, warped_1, visibility, t)  # (B*P*K, H, W, C)
        if self.refine:
            between += residual
        if self.refine and self.context_frames:
            second = curvature(frames)
            for i, weight in enumerate(cubic_weights(t)):
                between += weight * (1 + gain[..., i : i + 1]) * at_each_time(flat(second[:, i : i + pairs]))
        between = between.astype(frames.dtype)

        # The frames themselves before the interpolated ones of their pair.
        between = between.reshape(b, pairs, k, h, w, c)
        video = jnp.concatenate([frames[:, :-1, None], between], axis=2).reshape(b, pairs * (k + 1), h, w, c)
        video = jnp.concatenate([video, frames[:, -1:]], axis=1)
        if not return_aux:
            return video
        per_pair = [x.reshape(b, pairs, *x.shape[1:]) for x in (flow_01, flow_10)]
        per_time = [x.reshape(b, pairs, k, *x.shape[1:]) for x in (flow_t0, flow_t1, visibility, warped_0, warped_1)]
        return video, UpsamplerAux(*per_pair, *per_time)
