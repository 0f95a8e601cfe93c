"""Frames and captions of prepared TensorFlow Datasets, read without TensorFlow.

TFDS reads Tensor, Text and Scalar features without TensorFlow, but its Video feature imports TensorFlow when it is
constructed, so a data set with a Video does not open. A Video is stored as the encoded images of its frames, which are
read here.
"""

import functools
import io
import json
import math
import os
import re
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from videogen_jax.data.entries import TFDS_SUFFIX, BadItem, Item, Listing, absolute_path, clean_caption

VIDEO_CLASS = "tensorflow_datasets.core.features.video_feature.Video"


class TfdsCorpus(Listing):
    """The records of one split of a prepared data set in ArrayRecord files, in the order of the files.

    `item` reads the whole record for the caption; `read_frames` reads it again.

    Args:
      split: in TFDS's notation, such as "train" or "train[:90%]".
      frames_feature: uint8 frames `(T, H, W, 3)`: a Tensor, a Video, or a Sequence of Images.
      name, data_dir: "my_set/1.0.0" and the folder that contains it; without a version, the newest is read.
      folder: instead of `name` and `data_dir`, the folder that contains dataset_info.json.
      caption_feature: a Text; None for an unlabelled corpus.
      fps, fps_feature: frames per second, as a number or as the feature that holds it; exactly one of the two.
      id_feature: a Text or an integer, for which all records are read once; None for ids such as "train/17".

    Raises:
      ValueError: a field is wrong or the data set cannot be read; the message names it.
    """

    def __init__(
        self,
        split: str,
        frames_feature: str,
        name: str | None = None,
        data_dir: str | None = None,
        folder: str | None = None,
        caption_feature: str | None = None,
        fps: float | None = None,
        fps_feature: str | None = None,
        id_feature: str | None = None,
    ):
        if (fps is None) == (fps_feature is None):
            raise ValueError("exactly one of config.corpus.fps and config.corpus.fps_feature is needed")
        if fps is not None and not _is_rate(fps):
            raise ValueError(f"config.corpus.fps is {fps!r}; it must be above zero")
        if (folder is None) == (name is None) or (data_dir is None) != (name is None):
            raise ValueError("config.corpus.folder is needed, or config.corpus.name and config.corpus.data_dir")
        if folder is None:
            folder = _prepared_folder(name, absolute_path("data_dir", data_dir, "folder"))
        else:
            folder = _checked_folder("folder", folder, absolute_path("folder", folder, "folder"))
        self._folder, self._split, self._fps = folder, split, fps
        self._frames, self._caption, self._rate, self._id = frames_feature, caption_feature, fps_feature, id_feature
        self._metadata = tuple(dict.fromkeys(f for f in (caption_feature, fps_feature, id_feature) if f is not None))
        for field, feature in (
            ("frames_feature", frames_feature),
            ("caption_feature", caption_feature),
            ("fps_feature", fps_feature),
            ("id_feature", id_feature),
        ):
            if feature is not None:
                _check_feature(folder, field, feature)
        indices = range(len(_records(folder, split, (frames_feature,))))
        hashes = indices if id_feature is None else array("q", (hash(self._read(index)[0]) for index in indices))
        self._finish_listing(f"{folder} {split}", hashes)

    def _read(self, index: int) -> tuple[str, tuple[int, Mapping[str, Any]] | BadItem]:
        name = f"{self._split}/{index}"
        if not self._metadata:
            return name, (index, {})
        try:
            metadata = read_record(name, self._folder, self._split, self._metadata, index)
        except BadItem as error:
            return name, error
        if self._id is not None:
            name = metadata[self._id]
            name = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)
        return name, (index, metadata)

    def _item(self, name: str, entry: tuple[int, Mapping[str, Any]]) -> Item:
        index, metadata = entry
        caption = None if self._caption is None else clean_caption(name, metadata[self._caption])
        fps = self._fps if self._rate is None else metadata[self._rate]
        if not _is_rate(fps):
            raise BadItem(name, f"its {self._rate} is {fps!r}; it must be above zero")
        return Item(
            name,
            caption,
            self._folder,
            TFDS_SUFFIX,
            split=self._split,
            record=index,
            feature=self._frames,
            fps=float(fps),
        )


def read_frames(item: Item) -> np.ndarray:
    """Read the frames of an item of a `TfdsCorpus`, uint8 `(T, H, W, 3)`.

    Raises:
      BadItem: the record cannot be read, or its frames cannot be decoded or differ in size.
    """
    from PIL import Image

    frames = read_record(item.id, item.path, item.split, (item.feature,), item.record)[item.feature]
    if frames is None:
        raise BadItem(item.id, f"its record has no {item.feature}")
    try:
        frames = [
            np.asarray(Image.open(io.BytesIO(frame)).convert("RGB") if isinstance(frame, bytes) else frame)
            for frame in frames
        ]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises all of these
        raise BadItem(item.id, f"its {item.feature} has a frame that cannot be decoded ({error})") from error
    if len({frame.shape for frame in frames}) != 1:
        raise BadItem(item.id, f"its {item.feature} has {'frames of several sizes' if frames else 'no frames'}")
    return np.stack(frames)


def read_record(name: str, folder: str, split: str, features: tuple[str, ...], record: int) -> dict[str, Any]:
    """Read some features of a record.

    Args:
      name: the entry's id, for the error.
      folder, split, record: location of the record.
      features: names of the features.

    Raises:
      BadItem: the record cannot be read.
    """
    records = _records(folder, split, features)
    try:
        return records[record]
    except (RuntimeError, ValueError, KeyError) as error:  # ArrayRecord's errors, and records that lack the features
        raise BadItem(name, f"its record cannot be read ({error})") from error


@functools.lru_cache(maxsize=16)
def _records(folder: str, split: str, features: tuple[str, ...]) -> Sequence[dict[str, Any]]:
    """Open TFDS's data source of a split, decoding these features alone; cached, because opening takes long."""
    tfds = _tensorflow_datasets()
    from tensorflow_datasets.core import dataset_info, read_only_builder

    declared = _declared_features(folder)
    info = dataset_info.read_proto_from_builder_dir(folder)
    chosen = tfds.features.FeaturesDict({name: _undecoded(_feature(declared[name])) for name in features})
    info.features.CopyFrom(chosen.to_proto())
    builder = read_only_builder.builder_from_metadata(folder, info)
    try:
        return builder.as_data_source(split)
    except NotImplementedError as error:
        raise ValueError(
            f"{folder} is in {info.file_format} files, which have no random access: "
            "prepare it again with file_format='array_record'"
        ) from error
    except ValueError as error:
        raise ValueError(f"config.corpus.split is {split!r}, which {folder} does not have ({error})") from error


def _feature(declared: Mapping[str, Any]) -> Any:
    """Build the feature declared by an entry of features.json; a Video as the Sequence of Images it is stored as."""
    tfds = _tensorflow_datasets()
    if declared["pythonClassName"] != VIDEO_CLASS:
        return tfds.features.FeatureConnector.from_json(declared)
    video = declared["video"]
    length, *shape = [None if int(size) < 0 else int(size) for size in video["shape"]["dimensions"]]
    image = tfds.features.Image(shape=shape, dtype=np.dtype(video["dtype"]), encoding_format=video["encodingFormat"])
    return tfds.features.Sequence(image, length=length)


def _undecoded(feature: Any) -> Any:
    """Make a feature yield images as their bytes: TFDS would decode a palette image to its indices."""
    tfds = _tensorflow_datasets()
    if isinstance(feature, tfds.features.Sequence) and isinstance(feature.feature, tfds.features.Image):
        return tfds.features.Sequence(tfds.features.Text())
    return feature


def _check_feature(folder: str, field: str, name: str) -> None:
    declared = _declared_features(folder)
    if name not in declared:
        raise ValueError(f"config.corpus.{field} is {name!r}; {folder} has {', '.join(declared)}")
    kind = declared[name]["pythonClassName"].rpartition(".")[2]
    try:
        feature = _feature(declared[name])
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"config.corpus.{field} is {name!r}, whose type {kind} TFDS cannot open here ({error}); "
            "prepare the data set with a Video or a Tensor for the frames, and with Text and Scalar for the rest"
        ) from error
    shape = feature.shape
    if field == "frames_feature":
        is_frames = isinstance(shape, tuple) and len(shape) == 4 and shape[3] == 3 and feature.np_dtype == np.uint8
        if not is_frames:
            raise ValueError(
                f"config.corpus.{field} is {name!r}, of type {kind} and shape {shape}; it must hold uint8 "
                "frames (T, H, W, 3): a Tensor, a Video, or a Sequence of Images"
            )
    elif shape != ():
        raise ValueError(
            f"config.corpus.{field} is {name!r}, of type {kind} and shape {shape}; it must hold a single value"
        )


def _declared_features(folder: str) -> Mapping[str, Any]:
    with open(os.path.join(folder, "features.json"), "rb") as stream:
        features = json.load(stream)
    if "featuresDict" not in features:
        raise ValueError(f"{folder}/features.json has no featuresDict: prepare the data set again with a newer TFDS")
    return features["featuresDict"]["features"]


def _prepared_folder(name: str, data_dir: str) -> str:
    """Return the folder of a data set by its name; of the newest version if the name has none."""
    folder = os.path.join(data_dir, *name.replace(":", "/").split("/"))
    if os.path.isdir(folder) and not os.path.exists(os.path.join(folder, "dataset_info.json")):
        versions = [version for version in os.listdir(folder) if re.fullmatch(r"\d+\.\d+\.\d+", version)]
        newest = max(versions, key=lambda version: [int(number) for number in version.split(".")], default="")
        folder = os.path.join(folder, newest)
    return _checked_folder("name", name, folder)


def _checked_folder(field: str, value: str, folder: str) -> str:
    for file in ("dataset_info.json", "features.json"):
        if not os.path.exists(os.path.join(folder, file)):
            raise ValueError(f"config.corpus.{field} is {value!r}, but {os.path.join(folder, file)} does not exist")
    return folder


def _is_rate(fps: Any) -> bool:
    return isinstance(fps, (int, float)) and math.isfinite(fps) and fps > 0


def _tensorflow_datasets() -> Any:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ValueError(
            f"config.corpus.kind is 'tfds', which needs tensorflow_datasets and array_record ({error})"
        ) from error
    return tensorflow_datasets
