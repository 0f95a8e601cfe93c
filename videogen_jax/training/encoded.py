"""Training straight from pictures: a stage that reads latents, behind the frozen networks that make them."""

import dataclasses

import jax
import jax.numpy as jnp

from videogen_jax.data.encoding import Encoder
from videogen_jax.stages.stage import Batch, Metrics, Params, Stage


@dataclasses.dataclass(frozen=True)
class EncodedStage:
    """`stage` on batches of `video` uint8 `(B, T, H, W, 3)` and, where it reads text, `tokens` int32 `(B, L)`.

    The encoder's parameters are in `frozen["encoder"]`; beside `latents` the stage is given the first frame's as
    `reference`.
    """

    stage: Stage
    encoder: Encoder

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        shapes = self.encoder.shapes(batch["video"].shape[1])
        made = {name: jnp.zeros((1, *shape)) for name, shape in shapes.items()}
        return self.stage.init(rng, {**batch, **made})

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        return self.stage.loss(params, frozen, self._encoded(frozen, batch), rng)

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        return self.stage.sample(params, frozen, self._encoded(frozen, batch), rng)

    def parts(self) -> dict[str, tuple[str, dict]]:
        return self.stage.parts()

    def _encoded(self, frozen: Params, batch: Batch) -> dict[str, jax.Array]:
        made = self.encoder.encode(frozen["encoder"], batch)
        return {**batch, **made, "reference": made["latents"][:, :1]}
