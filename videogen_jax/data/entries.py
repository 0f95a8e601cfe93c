"""Entries of a corpus, and what all kinds of corpora share. Nothing here imports JAX, so that worker processes start
quickly; corpora and items can be pickled, hold no open files, and may be used from several threads."""

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
    """An entry that cannot be used; `str(error)` is the reason, without the entry's `id`."""

    def __init__(self, id: str, reason: str):
        self.id, self.reason = printable(id), printable(reason)
        super().__init__(self.id, self.reason)

    def __str__(self) -> str:
        return self.reason


@dataclasses.dataclass(frozen=True)
class Item:
    """One entry of a corpus: where its pictures are and what is said of them.

    Attributes:
      id: unique in the corpus.
      caption: None in an unlabelled corpus.
      path: the file, the tar shard that holds it, or the folder of a prepared TFDS data set.
      suffix: such as ".mp4", lower case; ".tfds" for a record of a TFDS data set.
      offset, size: of the bytes within the file; size None is the whole file.
      split, record, feature: of a TFDS data set, where the frames are.
      fps: frames a second of a TFDS record; None where the file says it.
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
        """What a decoder opens: the path; or of a tar's member a file, to be closed, that reads on demand."""
        if self.suffix == TFDS_SUFFIX:
            raise ValueError(f"{self.id} is a record of {self.path}, not a file")
        if self.size is None:
            return self.path
        return io.BufferedReader(FileRange(self.path, self.offset, self.size), 1 << 16)


class FileRange(io.RawIOBase):
    """A range of a file as a file of its own, for reading: `size` bytes from `offset`."""

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
        wanted = max(0, min(len(buffer), self._size - self._position))
        self._file.seek(self._offset + self._position)
        got = self._file.readinto(memoryview(buffer)[:wanted])
        self._position += got
        return got

    def close(self) -> None:
        self._file.close()
        super().close()


class Corpus(Protocol):
    """Entries with random access."""

    def __len__(self) -> int: ...

    def item(self, index: int) -> Item:
        """Raises BadItem for an entry that cannot be used."""

    def id(self, index: int) -> str:
        """The name of an entry, be it bad or not, in characters that can be printed."""


class Listing:
    """What all corpora share: an entry is refused if its id is that of an earlier one, or no name at all."""

    def _close_list(self, where: str, hashes: Sequence[int]) -> None:
        """Ends the listing; `hashes` are those of the ids, in order, 64 bits each."""
        if not len(hashes):
            raise ValueError(f"{where} holds no entries")
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
            raise BadItem(name, "its id is that of an earlier entry")
        if isinstance(entry, BadItem):
            raise entry
        if not name:
            raise BadItem(name, "its id is empty")
        if printable(name) != name:
            raise BadItem(name, "its id is not UTF-8")
        return self._item(name, entry)

    def _read(self, index: int) -> tuple[str, Any]:
        """The id, and what `_item` needs of the entry; or its place as a name, and a BadItem."""
        raise NotImplementedError

    def _item(self, name: str, entry: Any) -> Item:
        raise NotImplementedError


class Strings:
    """Strings as their bytes end to end, where a list of objects would take several times the memory."""

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


def existing(field: str, path: str, kind: str) -> str:
    """The whole path of the file or folder (`kind`) that a field of the config names."""
    exists = {"file": os.path.isfile, "folder": os.path.isdir}[kind]
    if not isinstance(path, (str, os.PathLike)) or not exists(os.path.expanduser(path)):
        raise ValueError(f"config.corpus.{field} is {str(path)!r}, but there is no such {kind}")
    return os.path.abspath(os.path.expanduser(path))


def clean_caption(name: str, caption: Any) -> str:
    """A caption, given as text or bytes, without blanks around it; raises BadItem if there is none."""
    if isinstance(caption, bytes):
        caption = caption.decode("utf-8-sig", "surrogateescape")
    if not isinstance(caption, str):
        raise BadItem(name, "it has no caption" if caption is None else "its caption is not a text")
    if printable(caption) != caption:
        raise BadItem(name, "its caption is not UTF-8")
    if not caption.strip():
        raise BadItem(name, "its caption is empty")
    return caption.strip()


def first_of(fields: Any, keys: Sequence[str]) -> Any:
    """What a JSON object has under the first of the keys that it has; None if that is none, or it is no object."""
    return next((fields[key] for key in keys if isinstance(fields, dict) and fields.get(key) is not None), None)


def printable(text: str) -> str:
    """Text that can be written as UTF-8: what stands for other bytes is spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def suffix_of(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _find_duplicates(hashes: np.ndarray, id_of: Callable[[int], str]) -> np.ndarray:
    """Indices, sorted, of the entries whose id an earlier one has; ids are compared where their hashes are equal."""
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]
    duplicates, seen, before = [], set(), -2
    for place in np.flatnonzero(ranked[1:] == ranked[:-1]).tolist():
        if place != before + 1:  # the first pair with this hash
            seen = {id_of(order[place])}
        name = id_of(order[place + 1])
        if name in seen:
            duplicates.append(order[place + 1])
        seen.add(name)
        before = place
    return np.sort(np.array(duplicates, np.int64))
