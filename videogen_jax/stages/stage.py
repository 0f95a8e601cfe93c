"""What every stage offers, and the way networks are built from plain settings."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.stages.frozen_autoencoder import FrozenAutoencoder

Params = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
Spec = dict[str, jax.ShapeDtypeStruct]  # name of an array -> its shape and dtype

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


@dataclasses.dataclass(frozen=True)
class InputSizes:
    """Sizes of a training example that come from the data, not from a stage's fields.

    Attributes:
      num_frames: frames of a clip.
      resolution: side of the latents; of the frames, for a stage that reads pixels.
      latent_channels: channels of the autoencoder's latents.
      text_length: tokens of a caption, padding included.
    """

    num_frames: int = 2
    resolution: int = 16
    latent_channels: int = 4
    text_length: int = 77


class ModelReader(Protocol):
    """A model folder from which a stage reads what it needs (`weights.model_folder.ModelFolder`)."""

    perceptual_weights: str

    def has(self, part: str) -> bool:
        """Whether the model has this part."""
        ...

    def part(self, part: str, template: Params) -> Params:
        """The parameters of a part, in the tree of `template`; "" reads the folder itself as the part."""
        ...

    def autoencoder(self) -> FrozenAutoencoder:
        """The autoencoder, without its parameters."""
        ...

    @property
    def autoencoder_params(self) -> Params:
        """The autoencoder's parameters."""
        ...

    def image_encoder(self, square: bool) -> Any:
        """The image encoder, with its parameters; square: it sees the central square of an image alone."""
        ...

    def motion_unet(self, template: Params, image_channels: int) -> Params:
        """A 2D UNet with motion modules, in the tree of `template`."""
        ...

    def video_unet(self, template: Params, image_channels: int) -> Params | None:
        """The UNet of a public video model, or None: there is none."""
        ...

    def null_context(self) -> jax.Array:
        """The text states of the empty prompt, `(L, D)` float32."""
        ...

    def single_tokens(self, words: Sequence[str]) -> np.ndarray:
        """The token of each word, int32 `(N,)`. Raises ValueError for a word of several tokens."""
        ...

    def perceptual_params(self, template: Params) -> Params:
        """VGG-16's parameters, from the folder `perceptual_weights`."""
        ...


class ModelWriter(Protocol):
    """A model folder into which a stage is exported (`training.exporting.Export`)."""

    @property
    def init_from(self) -> ModelReader | None:
        """What training started from; None: from scratch."""
        ...

    def untrained(self, params: Params) -> Params:
        """True for each leaf of `params` that `config.optimizer.fixed` kept from training."""
        ...

    def examples(self, count: int) -> Batch:
        """The first `count` training examples, or all if there are fewer."""
        ...

    def save(self, folder: str, config: Mapping[str, Any], params: Params) -> None:
        """Write a part: `config` is its config.json, with the `_class_name`."""
        ...

    def save_scheduler(self, stage: "Stage") -> None:
        """Write the `scheduler` folder of a text-to-image UNet, which samples as `stage` does."""
        ...

    def copy_from_model(self, folder: str) -> None:
        """Copy a folder, or a file, of the model whose frozen parts were read in training, if it is there."""
        ...


class Stage(abc.ABC):
    """A trainable part of VideoGen.

    A stage is a frozen dataclass of settings. It holds no arrays: what is trained is `params`; what the loss reads but
    does not train (text states of the empty prompt, perceptual weights) is `frozen`; both are pytrees passed in.

    Attributes:
      name: used in reports.
      inference_fields: fields of a stage that is only sampled from, whose networks for training need not be built.
    """

    name: ClassVar[str]
    inference_fields: ClassVar[Mapping[str, Any]] = {}

    @abc.abstractmethod
    def input_spec(self, sizes: InputSizes) -> Spec:
        """The arrays of one example (no batch axis) that `init`, `loss` and `sample` read, as data sets store them.

        A stage whose spec has "latents" is trained on latents, others on pixels; one that has "context" reads text
        states, one that has "tokens" the text itself.
        """

    @abc.abstractmethod
    def init(self, rng: jax.Array, batch: Batch) -> Params:
        """Fresh parameters, float32, for batches of the shapes of `batch`."""

    def frozen_spec(self, inputs: Spec) -> Params:
        """Shapes of what `load_frozen` returns. inputs: see `input_spec`."""
        del inputs
        return {}

    def load_frozen(self, model: ModelReader) -> Params:
        """Read what the loss needs and does not train. model: that of `config.model_folder`.

        Raises:
          ValueError: a part is missing or does not fit.
        """
        del model
        return {}

    def warm_start(self, fresh: Params, model: ModelReader, init_from: ModelReader | None) -> Params:
        """The parameters that training starts from.

        Args:
          fresh: from `init`; returned as they are where there is nothing better.
          model: of `config.model_folder`.
          init_from: of `config.init_from`, whose parts of this stage are taken; None if that is "".

        Raises:
          ValueError: a part is missing or does not fit.
        """
        del model
        if init_from is None:
            return fresh
        return {**fresh, **{name: init_from.part(folder, fresh[name]) for name, (folder, _) in self.parts().items()}}

    def check_settings(self, config: Any) -> None:
        """ValueError: this stage cannot be trained with the other sections of `config`."""
        del config

    @abc.abstractmethod
    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """Scalar loss and scalar metrics of one batch."""

    @abc.abstractmethod
    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        """Results on a training batch for the log: arrays to look at beside the ground truth."""

    @abc.abstractmethod
    def parts(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """The parts of a model that the stage trains: name in `params` -> (folder of the part, its config.json)."""

    def export(self, params: Params, writer: ModelWriter) -> None:
        """Write the stage's parts, and what a model needs beside them, into a model folder."""
        for name, (folder, config) in self.parts().items():
            writer.save(folder, config, params[name])


def batch_spec(inputs: Spec, batch_size: int = 1) -> Spec:
    """Shapes of a batch of `batch_size` examples of the shapes `inputs`."""
    return {name: jax.ShapeDtypeStruct((batch_size, *x.shape), x.dtype) for name, x in inputs.items()}


def build_network(kind: type, settings: Mapping[str, Any], where: str):
    """Build `kind(**settings)`, a linen module or a stage, from the plain values of a config or a config.json.

    Args:
      kind: a dataclass.
      settings: its fields; lists become tuples, and a `dtype` is one of the names DTYPES.
      where: named in errors.

    Raises:
      ValueError: naming a field that `kind` does not have, or a required one that is missing.
    """
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init and f.name not in ("parent", "name")}
    unknown = sorted(set(settings) - set(fields))
    if unknown:
        raise ValueError(f"{where} has no field {', '.join(unknown)}; its fields are {', '.join(sorted(fields))}")
    no_default = (dataclasses.MISSING, dataclasses.MISSING)
    missing = [n for n, f in fields.items() if n not in settings and (f.default, f.default_factory) == no_default]
    if missing:
        raise ValueError(f"{where} needs the field {', '.join(missing)}")
    values = {name: _as_tuple(v) for name, v in settings.items()}
    if isinstance(values.get("dtype"), str):
        if values["dtype"] not in DTYPES:
            raise ValueError(f"{where}.dtype is {values['dtype']!r}; it may be {', '.join(DTYPES)}")
        values["dtype"] = DTYPES[values["dtype"]]
    return kind(**values)


def _as_tuple(value: Any) -> Any:
    """Lists as tuples, all the way down, so that a module's fields can be hashed."""
    return tuple(_as_tuple(v) for v in value) if isinstance(value, (list, tuple)) else value
