"""Recipes: all that a video was made from, small enough to travel in the file, enough to make it again."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np

from videogen_jax.runtime.version import __version__
from videogen_jax.sampling.request import SamplingRequest
from videogen_jax.video_io import read_metadata

METADATA_KEY = "description"  # a key that every format here has, an mp4 file in its classic form
_FIELDS = (  # of the JSON, in their order
    *("prompt", "seed", "num_frames", "fps", "temporal_factor", "size", "settings", "decode_chunk", "decode_overlap"),
    *("reference", "model", "fingerprint", "reference_model", "batch_size", "slot", "dtype", "software"),
)
_OPTIONAL = ("components", "noise")  # there only where it is not None


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A resolved request of one prompt and its provenance.

    The same recipe on the same machine gives the same frames, bit for bit.

    Attributes:
      request: what was asked for, completed: the prompt, its seed, the settings of each stage that was sampled.
      reference: `array_digest` of a reference image that was not drawn, else None.
      model: name of the model, a folder or hub id.
      fingerprint: `weights.fingerprint.model_fingerprint` of the model.
      reference_model: folder of the model that drew the reference image, where it was another one.
      slot: the video's place in the batch: sums may be taken in another order elsewhere.
      dtype: in which the networks computed.
      software: versions and device, for a note where they differ: videogen_jax, jax, device.
      components: what the model was put together with, as `ModelSource.components`; None: nothing.
      noise: `array_digest` of the noise that was given to a stage, by the stage's name; None: all was drawn.
    """

    request: SamplingRequest
    reference: str | None
    model: str
    fingerprint: str
    reference_model: str | None
    slot: int
    dtype: str
    software: Mapping[str, str]
    components: Mapping[str, str] | None = None
    noise: Mapping[str, str] | None = None

    @property
    def prompt(self) -> str:
        """The sentence."""
        return self.request.prompts[0]

    @property
    def seed(self) -> int:
        """The seed of the random numbers."""
        return self.request.seed[0]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, the request's fields among those of its provenance."""
        provenance = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]}
        values = {**self.request.to_json(), **provenance, "software": dict(self.software)}
        optional = [name for name in _OPTIONAL if values[name] is not None]
        return {name: values[name] for name in (*_FIELDS, *optional)}

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote. ValueError: it is no recipe, or a field is missing, unknown or unusable."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"a recipe must be JSON: {error}") from error
        if not isinstance(values, dict) or set(values) - set(_OPTIONAL) != set(_FIELDS):
            wrong = sorted((set(values) - set(_OPTIONAL)) ^ set(_FIELDS)) if isinstance(values, dict) else ["an object"]
            raise ValueError(f"a recipe has the fields {', '.join(_FIELDS)}; missing or unknown: {', '.join(wrong)}")
        provenance = {field.name: values.pop(field.name, None) for field in dataclasses.fields(cls)[1:]}
        try:
            request = SamplingRequest.from_json({**values, "seed": (values["seed"],)})
            provenance["software"] = dict(provenance["software"])
        except (TypeError, AttributeError) as error:
            raise ValueError(f"a recipe's settings, size or software are unusable: {error}") from error
        return cls(request, **provenance)

    def whole_batch(self) -> SamplingRequest:
        """The request that makes the video again: the prompt in every slot of the batch that was compiled."""
        batch = self.request.batch_size
        return dataclasses.replace(self.request, prompts=self.request.prompts * batch, seed=self.request.seed * batch)

    def metadata(self) -> dict[str, str]:
        """Texts for a file's metadata: title, comment, and the recipe for `read`."""
        comment = f"VideoGen in JAX, {self.model}, seed {self.seed}"
        return {"title": self.prompt, "comment": comment, METADATA_KEY: self.to_json()}

    @classmethod
    def read(cls, path: str | os.PathLike) -> Self:
        """The recipe that a file holds (.mp4, .webm, .gif or .png).

        Raises:
          ValueError: the file does not exist, cannot be read, or holds no recipe.
        """
        metadata = read_metadata(path)
        if METADATA_KEY not in metadata:
            raise ValueError(f"{path} holds no recipe: it was not written by this package, or its metadata are lost")
        try:
            return cls.from_json(metadata[METADATA_KEY])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def array_digest(array: np.ndarray) -> str:
    """SHA-256, in hex, of an array's shape and values: of an image uint8 `(H, W, 3)`, of noise float32."""
    return hashlib.sha256(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def software() -> dict[str, str]:
    """What a recipe says of the versions and the device that a video is made with here."""
    return {"videogen_jax": __version__, "jax": jax.__version__, "device": jax.devices()[0].device_kind}
