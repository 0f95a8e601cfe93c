"""Training straight from pictures: a stage that reads latents, behind the frozen networks that make them."""

import dataclasses

import jax
import jax.numpy as jnp

from videogen_jax.data.encoding import Encoder
from videogen_jax.stages.stage import Batch, InputSizes, Metrics, Params, Spec, Stage


@dataclasses.dataclass(frozen=True)
class EncodedStage(Stage):
    """`stage` on batches of `video` uint8 `(B, T, H, W, 3)` and, where it reads text, `tokens` int32 `(B, L)`.

    The encoder's parameters are in `frozen["encoder"]`. Of the latents, those of the first frame are the `reference`.
    """

    stage: Stage
    encoder: Encoder

    @property
    def name(self) -> str:
        return self.stage.name

    def input_spec(self, sizes: InputSizes) -> Spec:
        inputs = self.stage.input_spec(sizes)
        encoded = {*self.encoder.resolutions, "reference", "context"}
        spec = {name: x for name, x in inputs.items() if name not in encoded}
        num_frames, side = inputs["latents"].shape[0], self.encoder.pixels
        spec["video"] = jax.ShapeDtypeStruct((num_frames, side, side, 3), jnp.uint8)
        if self.encoder.text is not None:
            spec["tokens"] = jax.ShapeDtypeStruct((self.encoder.text.tokenizer.model_max_length,), jnp.int32)
        return spec

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        shapes = self.encoder.shapes(batch["video"].shape[1])
        encoded = {name: jnp.zeros((1, *shape)) for name, shape in shapes.items()}
        return self.stage.init(rng, {**batch, **encoded})

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        return self.stage.loss(params, frozen, self._encode(frozen, batch), rng)

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        return self.stage.sample(params, frozen, self._encode(frozen, batch), rng)

    def parts(self) -> dict[str, tuple[str, dict]]:
        return self.stage.parts()

    def _encode(self, frozen: Params, batch: Batch) -> dict[str, jax.Array]:
        encoded = self.encoder.encode(frozen["encoder"], batch)
        return {**batch, **encoded, "reference": encoded["latents"][:, :1]}
