"""Entries of a corpus, and the parts that all kinds of corpora share.

Nothing here imports JAX, so that worker processes start quickly. Corpora and items can be pickled, hold no open files
and may be used from several threads.
"""

import dataclasses
import io
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np

VIDEO_SUFFIXES = (
    *(".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".mpg", ".mpeg"),
    *(".ts", ".gif", ".wmv", ".flv", ".ogv"),
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MEDIA = {"videos": VIDEO_SUFFIXES, "images": IMAGE_SUFFIXES}
CAPTION_KEYS = ("caption", "text")
TFDS_SUFFIX = ".tfds"


class BadItem(ValueError):
    """An error for an entry that cannot be used; `str(error)` is the reason, without the entry's `id`."""

    def __init__(self, id: str, reason: str):
        self.id, self.reason = printable(id), printable(reason)
        super().__init__(self.id, self.reason)

    def __str__(self) -> str:
        return self.reason


@dataclasses.dataclass(frozen=True)
class Item:
    """One entry of a corpus: the location of its video or image, and its caption.

    Attributes:
      id: unique in the corpus.
      caption: None in an unlabelled corpus.
      path: the file, the tar shard that contains it, or the folder of a prepared TFDS data set.
      suffix: lower case, such as ".mp4"; ".tfds" for a record of a TFDS data set.
      offset, size: byte range within the file; size None for the whole file.
      split, record, feature: location of the frames in a TFDS data set.
      fps: frames per second of a TFDS record; None if the file states it.
    """

    id: str
    caption: str | None
    path: str
    suffix: str
    offset: int = 0
    size: int | None = None
    split: str | None = None
    record: int | None = None
    feature: str | None = None
    fps: float | None = None

    @property
    def is_image(self) -> bool:
        return self.suffix in IMAGE_SUFFIXES

    def open(self) -> str | BinaryIO:
        """Return what a decoder opens: the path, or for a member of a tar shard a file, which the caller closes.

        Raises:
          ValueError: the entry is a record of a TFDS data set.
        """
        if self.suffix == TFDS_SUFFIX:
            raise ValueError(f"{self.id} is a record of {self.path}, not a file")
        if self.size is None:
            return self.path
        return io.BufferedReader(FileRange(self.path, self.offset, self.size), 1 << 16)


class FileRange(io.RawIOBase):
    """A read-only file that consists of `size` bytes of another file, from `offset` on."""

    def __init__(self, path: str, offset: int, size: int):
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (close() closes it)
        self._offset, self._size, self._position = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if position < 0:
            raise ValueError(f"{position} is before the beginning of the file")
        self._position = position
        return position

    def readinto(self, buffer: memoryview) -> int:
        remaining = max(0, min(len(buffer), self._size - self._position))
        self._file.seek(self._offset + self._position)
        count = self._file.readinto(memoryview(buffer)[:remaining])
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class Corpus(Protocol):
    """Entries with random access."""

    def __len__(self) -> int: ...

    def item(self, index: int) -> Item:
        """Return an entry.

        Raises:
          BadItem: the entry cannot be used.
        """

    def id(self, index: int) -> str:
        """Return the id of an entry, usable or not, in printable characters."""


class Listing:
    """The base class of all corpora, which refuses entries whose id is empty, not UTF-8, or that of an earlier one."""

    def _finish_listing(self, source: str, hashes: Sequence[int]) -> None:
        """Record the number of entries and find duplicate ids.

        Args:
          source: what was listed, for messages.
          hashes: 64-bit hashes of the ids, in order.

        Raises:
          ValueError: there are no entries.
        """
        if not len(hashes):
            raise ValueError(f"{source} holds no entries")
        self._length = len(hashes)
        self._duplicates = _find_duplicates(np.asarray(hashes, np.int64), self.id)

    def __len__(self) -> int:
        return self._length

    def id(self, index: int) -> str:
        return printable(self._read(index)[0])

    def item(self, index: int) -> Item:
        if not 0 <= index < len(self):
            raise IndexError(f"entry {index} of {len(self)}")
        name, entry = self._read(index)
        place = np.searchsorted(self._duplicates, index)
        if place < len(self._duplicates) and self._duplicates[place] == index:
            raise BadItem(name, "an earlier entry has the same id")
        if isinstance(entry, BadItem):
            raise entry
        if not name:
            raise BadItem(name, "its id is empty")
        if printable(name) != name:
            raise BadItem(name, "its id is not UTF-8")
        return self._item(name, entry)

    def _read(self, index: int) -> tuple[str, Any]:
        """Return an entry's id and the data that `_item` needs, or its position as an id and a BadItem."""
        raise NotImplementedError

    def _item(self, name: str, entry: Any) -> Item:
        raise NotImplementedError


class Strings:
    """A sequence of strings stored as their concatenated bytes, in a fraction of the memory of a list."""

    def __init__(self, strings: Iterable[str]):
        self._text, ends = bytearray(), array("q", [0])
        for string in strings:
            self._text += string.encode("utf-8", "surrogateescape")
            ends.append(len(self._text))
        self._ends = np.array(ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return self._text[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")


def media_suffixes(media: str) -> tuple[str, ...]:
    if media not in MEDIA:
        raise ValueError(f"config.corpus.media is {media!r}; it may be {' or '.join(MEDIA)}")
    return MEDIA[media]


def absolute_path(field: str, path: str, kind: str) -> str:
    """Return the absolute path of a file or folder that `config.corpus` names.

    Args:
      field: the config field.
      path: its value.
      kind: "file" or "folder".

    Raises:
      ValueError: there is no such file or folder.
    """
    exists = {"file": os.path.isfile, "folder": os.path.isdir}[kind]
    if not isinstance(path, (str, os.PathLike)) or not exists(os.path.expanduser(path)):
        raise ValueError(f"config.corpus.{field} is {str(path)!r}, but there is no such {kind}")
    return os.path.abspath(os.path.expanduser(path))


def clean_caption(name: str, caption: Any) -> str:
    """Decode a caption and strip the whitespace around it.

    Args:
      name: the entry's id, for the error.
      caption: a string or UTF-8 bytes.

    Raises:
      BadItem: the caption is missing, empty, not a string or not UTF-8.
    """
    if isinstance(caption, bytes):
        caption = caption.decode("utf-8-sig", "surrogateescape")
    if not isinstance(caption, str):
        raise BadItem(name, "it has no caption" if caption is None else "its caption is not a string")
    if printable(caption) != caption:
        raise BadItem(name, "its caption is not UTF-8")
    if not caption.strip():
        raise BadItem(name, "its caption is empty")
    return caption.strip()


def first_of(fields: Any, keys: Sequence[str]) -> Any:
    """Return the value of the first of `keys` that a JSON object has; None if it has none or is not an object."""
    return next((fields[key] for key in keys if isinstance(fields, dict) and fields.get(key) is not None), None)


def printable(text: str) -> str:
    """Escape the surrogates of `text`, so that it can be encoded as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def suffix_of(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _find_duplicates(hashes: np.ndarray, id_of: Callable[[int], str]) -> np.ndarray:
    """Return the sorted indices of entries with the id of an earlier one; only ids of equal hashes are compared."""
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]
    duplicates, names, previous = [], set(), -2  # names: ids with the current hash
    for place in np.flatnonzero(ranked[1:] == ranked[:-1]).tolist():
        if place != previous + 1:  # the first pair with this hash
            names = {id_of(order[place])}
        name = id_of(order[place + 1])
        if name in names:
            duplicates.append(order[place + 1])
        names.add(name)
        previous = place
    return np.sort(np.array(duplicates, np.int64))
