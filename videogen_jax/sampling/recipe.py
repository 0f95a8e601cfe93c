"""Recipes: all that a video was made from, small enough to travel in the file, enough to make it again."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from videogen_jax.video_io import read_metadata
from videogen_jax.weights.model_index import StageSettings

METADATA_KEY = "description"  # a key that every format here has, an mp4 file in its classic form


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What one video was made from. The same recipe on the same machine gives the same frames, bit for bit.

    Attributes:
      prompt, seed: as given.
      num_frames, fps, temporal_factor: the video's frames, the rate at which it is played, and what the base frame
        rate was multiplied by.
      size: (height, width) in pixels.
      settings: the settings of each stage that was sampled.
      decode_chunk, decode_overlap: see `VideoGenPipeline`.
      reference: where the reference image was given, `pixel_digest` of it, else None.
      model, fingerprint: name of the model (a folder or hub id) and `VideoGenModel.fingerprint`.
      reference_model: folder of the model that drew the reference image, where it was another one.
      batch_size, slot: the batch that was compiled and the video's place in it: sums may be taken in another order in
        another batch.
      dtype: in which the networks computed.
      software: versions and device, for a note where they differ: videogen_jax, jax, device.
    """

    prompt: str
    seed: int
    num_frames: int
    fps: float
    temporal_factor: int
    size: tuple[int, int]
    settings: Mapping[str, StageSettings]
    decode_chunk: int
    decode_overlap: int
    reference: str | None
    model: str
    fingerprint: str
    reference_model: str | None
    batch_size: int
    slot: int
    dtype: str
    software: Mapping[str, str]

    @property
    def version(self) -> str:
        """Version of this package that made the video."""
        return self.software["videogen_jax"]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, in the order of the fields."""
        return dataclasses.asdict(self) | {"size": list(self.size)}

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """What `to_json` wrote. ValueError: it is no recipe, or a field is missing, unknown or of no use."""
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"a recipe must be JSON: {error}") from error
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(fields, dict) or set(fields) != set(names):
            wrong = sorted(set(fields) ^ set(names)) if isinstance(fields, dict) else ["an object"]
            raise ValueError(f"a recipe has the fields {', '.join(names)}; missing or unknown: {', '.join(wrong)}")
        try:
            fields["settings"] = {stage: StageSettings(**values) for stage, values in fields["settings"].items()}
            fields["size"] = tuple(fields["size"])
            fields["software"] = dict(fields["software"])
        except (TypeError, AttributeError) as error:
            raise ValueError(f"a recipe's settings, size or software are of no use: {error}") from error
        return cls(**fields)

    def metadata(self) -> dict[str, str]:
        """Texts for a file's metadata: title, comment, and the recipe for `read`."""
        comment = f"VideoGen in JAX, {self.model}, seed {self.seed}"
        return {"title": self.prompt, "comment": comment, METADATA_KEY: self.to_json()}

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Recipe":
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


def pixel_digest(image: np.ndarray) -> str:
    """SHA-256, in hex, of an image's size and pixels, uint8 `(H, W, 3)`."""
    return hashlib.sha256(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
