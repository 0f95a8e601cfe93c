"""Prepared data sets: TFDS folders of ArrayRecord shards with the latents, text states and metadata of each clip.

A record holds `id`, `caption`, `start` (seconds into the video), `fps`, `motion` (see `clips.ClipRules`) and arrays as
raw little-endian float16 bytes, whose shapes are in the folder's `prepare.json`: `latents_R` `(T, R, R, C)` and
`reference_R` `(1, R, R, C)` for every resolution R, and `context` `(L, D)`. TFDS itself would store half-precision
arrays at twice their size.
"""

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

RECIPE_NAME = "prepare.json"
STORED = np.dtype("<f2")
VERSION = "1.0.0"
# One record per chunk, because clips are read in random order; latents do not compress.
_WRITER_OPTIONS = "group_size:1,uncompressed"


def features(arrays: Mapping[str, tuple[int, ...]]):
    """Return the TFDS features of a record with these arrays (name -> shape)."""
    import tensorflow_datasets as tfds

    scalars = {name: tfds.features.Scalar(np.float32) for name in ("start", "fps", "motion")}
    texts = {name: tfds.features.Text() for name in ("id", "caption")}
    documented = {
        name: tfds.features.Text(doc=f"float16 {tuple(shape)}, little-endian bytes") for name, shape in arrays.items()
    }
    return tfds.features.FeaturesDict({**texts, **scalars, **documented})


class ShardWriter:
    """A writer of one shard, for use in a `with` statement; the file appears complete or not at all.

    Args:
      path: of the shard.
      arrays: name -> shape of the arrays of a record.
    """

    def __init__(self, path: Path, arrays: Mapping[str, tuple[int, ...]]):
        from array_record.python.array_record_module import ArrayRecordWriter
        from tensorflow_datasets.core.example_serializer import ExampleSerializer

        self._path, self._features = path, features(arrays)
        self._serializer = ExampleSerializer(self._features.get_serialized_info())
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._writer = ArrayRecordWriter(str(self._temporary), _WRITER_OPTIONS)

    def __enter__(self) -> Self:
        return self

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record; arrays are stored as float16."""
        fields = {
            name: np.asarray(value, STORED).tobytes() if isinstance(value, np.ndarray) else value
            for name, value in record.items()
        }
        example = self._serializer.get_tf_example(self._features.encode_example(fields))
        self._writer.write(example.SerializeToString(deterministic=True))  # otherwise the order of fields is random

    def __exit__(self, kind: type[BaseException] | None, *unused: Any) -> None:
        self._writer.close()
        if kind is None:
            os.replace(self._temporary, self._path)
        else:
            self._temporary.unlink(missing_ok=True)


def write_metadata(folder: Path, name: str, split: str, arrays: Mapping[str, tuple[int, ...]], lengths: list[int]):
    """Write `dataset_info.json` and `features.json`, by which TFDS recognizes the folder.

    Args:
      folder: contains the shards.
      name: name of the data set.
      split: name of the split.
      arrays: name -> shape of the arrays of a record.
      lengths: number of records of each shard.
    """
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=name, split=split, filetype_suffix="array_record"
    )
    shards = sorted(folder.glob(f"{name}-{split}.array_record-*"))
    size = sum(path.stat().st_size for path in shards)
    split_info = tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        for path in shards:
            (Path(temporary) / path.name).touch()  # TFDS checks that files of these names exist
        tfds.folder_dataset.write_metadata(
            data_dir=temporary,
            features=features(arrays),
            split_infos=[split_info],
            version=VERSION,
            check_data=False,  # the check needs TensorFlow
            description="Latents of clips and text states of their captions, made by videogen_jax.prepare.",
        )
        for name in ("features.json", "dataset_info.json"):  # the last marks the data set as finished
            os.replace(Path(temporary) / name, folder / name)


@dataclasses.dataclass(frozen=True)
class PreparedClips:
    """A finished data set as a source of training examples.

    An example has float16 `latents` `(T, h, w, C)` of one resolution, `reference` `(1, h, w, C)`, optionally `lower`
    `(T, h', w', C)` and `context` `(L, D)`, and `fps`.

    Attributes:
      folder: the data set, `<data_dir>/<name>/1.0.0`.
      resolution: side of the latents.
      lower_resolution: side of the latents of the stage below (`lower`), or None.
      text: whether examples have `context`.
      split: name of the split.

    Raises:
      ValueError: the folder has no finished data set, or the data set lacks one of these arrays.
    """

    folder: str
    resolution: int
    lower_resolution: int | None = None
    text: bool = True
    split: str = "train"

    def __post_init__(self):
        import tensorflow_datasets as tfds

        folder = Path(self.folder)
        if not (folder / "dataset_info.json").is_file():
            started = (folder / RECIPE_NAME).is_file()
            raise ValueError(
                f"config.data.folder: {folder} has no finished data set"
                + ("; run videogen_jax.prepare again to finish it" if started else " from videogen_jax.prepare")
            )
        shapes = json.loads((folder / RECIPE_NAME).read_text())["arrays"]
        stored_names = {"latents": f"latents_{self.resolution}", "reference": f"reference_{self.resolution}"}
        if self.lower_resolution is not None:
            stored_names["lower"] = f"latents_{self.lower_resolution}"
        if self.text:
            stored_names["context"] = "context"
        for stored in stored_names.values():
            if stored not in shapes:
                raise ValueError(f"{folder} has no {stored}; it has {', '.join(sorted(shapes))}")
        source = tfds.builder_from_directory(str(folder)).as_data_source(split=self.split)
        arrays = {name: (stored, tuple(shapes[stored])) for name, stored in stored_names.items()}
        object.__setattr__(self, "_arrays", arrays)
        object.__setattr__(self, "_source", source)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        record = self._source[index]
        example = {
            name: np.frombuffer(record[stored], STORED).reshape(shape) for name, (stored, shape) in self._arrays.items()
        }
        example["fps"] = np.float32(record["fps"])
        return example

    def caption(self, index: int) -> str:
        return self._source[index]["caption"].decode()
