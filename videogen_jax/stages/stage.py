"""The face that all stages share, and the way their networks are built from plain settings."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

Params = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


class Stage(Protocol):
    """A trainable part of VideoGen.

    A stage is a frozen dataclass of settings. It holds no arrays: what is trained is `params`, what is needed but not
    trained (the embedding of the empty prompt, perceptual weights) is `frozen`; both are pytrees passed in.
    """

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        """Fresh parameters, float32, for batches of the shapes of `batch`."""
        ...

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """Scalar loss and scalar metrics of one batch."""
        ...

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        """What the stage makes of a training batch: arrays to be looked at beside the truth."""
        ...

    def parts(self) -> dict[str, tuple[str, dict]]:
        """What `export` writes: name in `params` -> (folder of the part, its config.json)."""
        ...


def build_network(kind: type, settings: Mapping[str, Any], where: str):
    """`kind(**settings)` for a linen module or a stage, with lists made tuples and dtypes given by name.

    Raises:
      ValueError: naming a field that `kind` does not have, or one that it needs and did not get.
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
