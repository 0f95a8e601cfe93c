"""SparseCtrl's network (Guo et al. 2023, arXiv 2311.16933): a reference image at chosen frames steers a video UNet.

Layers and names are those of diffusers' `SparseControlNetModel`: the UNet's way down and its middle, with motion
modules of one attention on the way down, whose outputs are added to the UNet's through convolutions that start at zero.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros as zeros_init

from videogen_jax.models.layers import conv3x3
from videogen_jax.models.temporal_kinds import KINDS
from videogen_jax.models.unet import UNet


class SparseControl(UNet):
    """What is added to the skip connections of a UNet and to the output of its middle block.

    Its fields are the UNet's, of which it has no way up. It does not see the noisy latents: the authors put zeros in
    their place, lest their noise spoil the frames without a condition (section 3.2).
    """

    temporal: str | None = "motion_module"
    motion_mid_block: bool = False
    motion_attentions: int = 1

    @nn.compact
    def __call__(
        self, timesteps: jax.Array, context: jax.Array, condition: jax.Array, mask: jax.Array
    ) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """Compute what the UNet takes as `control`.

        Args:
          timesteps: `(B,)`, 0 to 1000.
          context: `(B, L, cross_attention_dim)`, the states of the text.
          condition: latents of the reference images at their frames, zeros at the others, `(B, T, H, W, in_channels)`.
          mask: `(T,)`, 1 at the frames of the reference images, 0 at the others.

        Returns: arrays `(B*T, H', W', C)`, one for each skip connection, and that for the middle.

        Raises:
          ValueError: as `UNet`.
        """
        heads, depths, reference_levels = self.check(condition, context, None, None, None, None)
        b, t, h, w, _ = condition.shape
        positions = jnp.broadcast_to(jnp.arange(t, dtype=jnp.float32), (b, t))
        temb = jnp.repeat(self.embed_scalars(timesteps, {}, None, None, None), t, axis=0)
        temporal = KINDS[self.temporal].of(self)
        temporal.check(self, t)
        marked = jnp.broadcast_to(mask[:, None, None, None], (*condition.shape[:-1], 1))
        marked = jnp.concatenate([condition, marked], axis=-1).reshape(b * t, h, w, -1)
        features = self.block_out_channels[0]
        x = conv3x3(features, self.dtype, "conv_in")(jnp.zeros((b * t, h, w, self.in_channels), self.dtype))
        embedding = conv3x3(features, self.dtype, "controlnet_cond_embedding", kernel_init=zeros_init)
        x = x + embedding(marked.astype(self.dtype))
        block = self.block_builder(temporal, heads, depths, reference_levels)
        x, skips = self.down_and_middle(block, x, temb, context.astype(self.dtype), positions)

        def output(name: str, x: jax.Array) -> jax.Array:
            return nn.Conv(x.shape[-1], (1, 1), dtype=self.dtype, kernel_init=zeros_init, name=name)(x)

        added = tuple(output(f"controlnet_down_blocks_{i}", skip) for i, skip in enumerate(skips))
        return added, output("controlnet_mid_block", x)
