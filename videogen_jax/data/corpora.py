"""What there is to train on: videos, images and their captions, listed with random access and little memory.

A corpus of ten million entries takes a few hundred megabytes: kept are positions in files, and what stands there is
read when it is asked for. Nothing here imports JAX, so that worker processes start quickly. Corpora and items can be
pickled, hold no open files, and may be used from several threads.
"""

import codecs
import csv
import dataclasses
import inspect
import io
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
        from videogen_jax.data.tar_shards import FileRange

        if self.suffix == TFDS_SUFFIX:
            raise ValueError(f"{self.id} is a record of {self.path}: frames() reads it")
        if self.size is None:
            return self.path
        return io.BufferedReader(FileRange(self.path, self.offset, self.size), 1 << 16)

    def frames(self) -> np.ndarray:
        """The frames of a TFDS record, uint8 (T, H, W, 3).

        Raises:
          BadItem: the record cannot be read, or holds something else.
        """
        from videogen_jax.data.tfds_records import read_frames

        if self.suffix != TFDS_SUFFIX:
            raise ValueError(f"{self.id} is the file {self.path}: open() gives it")
        return read_frames(self)


class Corpus(Protocol):
    """Entries with random access."""

    def __len__(self) -> int: ...

    def item(self, index: int) -> Item:
        """Raises BadItem for an entry that cannot be used."""

    def id(self, index: int) -> str:
        """The name of an entry, be it bad or not, in characters that can be printed."""


def build_corpus(config: Mapping[str, Any]) -> Corpus:
    """The corpus of plain settings: `kind` (csv, folder, webdataset or tfds) and the fields of that kind.

    Raises:
      ValueError: naming the field that is unknown, missing or wrong, or the file that cannot be listed.
    """
    # Here, because these two import this module.
    from videogen_jax.data.tar_shards import WebdatasetCorpus
    from videogen_jax.data.tfds_records import TfdsCorpus

    kinds = {"csv": CsvCorpus, "folder": folder_corpus, "webdataset": WebdatasetCorpus, "tfds": TfdsCorpus}
    fields = dict(config)
    kind = fields.pop("kind", None)
    if kind not in kinds:
        raise ValueError(f"config.corpus.kind is {kind!r}; it may be {', '.join(kinds)}")
    allowed = inspect.signature(kinds[kind]).parameters
    for name in fields:
        if name not in allowed:
            raise ValueError(f"config.corpus.{name} is unknown; a corpus of kind {kind} has {', '.join(allowed)}")
    for name, parameter in allowed.items():
        if parameter.default is parameter.empty and name not in fields:
            raise ValueError(f"config.corpus.{name} is missing; a corpus of kind {kind} needs it")
    return kinds[kind](**fields)


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


class CsvCorpus(Listing):
    """Rows of a table with a header, as WebVid's: the file of a row is `folder/<page_dir>/<videoid><suffix>`.

    Args:
      file: the table, UTF-8.
      folder: that the files are in.
      suffix: of the files; "" where the id column holds it.
      id_column: of the entries' ids, which are the files' names.
      page_column: of the folders within `folder`; None or "" if there are none.
      caption_column: None or "" for an unlabelled corpus.
    """

    def __init__(
        self,
        file: str,
        folder: str,
        suffix: str = ".mp4",
        id_column: str = "videoid",
        page_column: str | None = "page_dir",
        caption_column: str | None = "name",
    ):
        self._file, self._folder = existing("file", file, "file"), existing("folder", folder, "folder")
        self._suffix = suffix
        if suffix and suffix.lower() not in VIDEO_SUFFIXES + IMAGE_SUFFIXES:
            allowed = ", ".join(VIDEO_SUFFIXES + IMAGE_SUFFIXES)
            raise ValueError(f"config.corpus.suffix is {suffix!r}; it may be one of {allowed}")
        offsets, hashes = array("q"), array("q")
        with open(self._file, "rb") as stream:
            lines = _TextLines(stream)
            rows = csv.reader(lines)
            try:
                header = [column.strip() for column in next(rows, [])]
            except csv.Error as error:
                raise ValueError(f"{file} has no header that can be parsed ({error})") from error
            for field, column in (("id", id_column), ("page", page_column), ("caption", caption_column)):
                if column not in header and (column or field == "id"):
                    found = printable(", ".join(header)) or "none"
                    raise ValueError(
                        f"{file} lacks the column {column!r} of config.corpus.{field}_column; found: {found}"
                    )
            self._width = len(header)
            self._id_at = header.index(id_column)
            self._page_at = header.index(page_column) if page_column else None
            self._caption_at = header.index(caption_column) if caption_column else None
            while True:
                start = lines.position
                try:
                    row = next(rows)
                except StopIteration:
                    break
                except csv.Error:
                    row = None  # _read meets the error again
                if row != []:  # as a blank line is
                    offsets.append(start)
                    hashes.append(hash(self._name(row, start)))
        offsets.append(lines.position)
        self._rows = np.array(offsets)
        self._close_list(file, hashes)

    def _name(self, row: list[str] | None, start: int) -> str:
        if row is None or len(row) <= self._id_at:
            return f"{os.path.basename(self._file)}@{start}"
        return row[self._id_at].strip()

    def _read(self, index: int) -> tuple[str, list[str] | BadItem]:
        start = int(self._rows[index])
        lines = _TextLines(io.BytesIO(_read_between(self._file, self._rows, index)))
        try:
            row = next(csv.reader(lines), [])
        except csv.Error as error:
            name = self._name(None, start)
            return name, BadItem(name, f"its row cannot be parsed ({error})")
        name = self._name(row, start)
        if len(row) != self._width:
            return name, BadItem(name, f"its row has {len(row)} columns, but the header {self._width}")
        return name, row

    def _item(self, name: str, row: list[str]) -> Item:
        caption = None if self._caption_at is None else clean_caption(name, row[self._caption_at])
        page = "" if self._page_at is None else row[self._page_at].strip()
        path = _existing_media(name, self._folder, os.path.join(page, name + self._suffix), *MEDIA.values())
        return Item(name, caption, path, _suffix(path))


def folder_corpus(folder: str, media: str = "videos", captions: str | None = "txt") -> Corpus:
    """The videos or images in a folder and in the folders within it.

    Args:
      folder: hidden files, and links to other folders, are passed over.
      media: "videos" or "images".
      captions: "txt": `a/b.txt` is the caption of `a/b.mp4`. A file (.jsonl): its lines are the entries. None or
        "": the corpus is unlabelled.
    """
    if not captions or captions == "txt":
        return FolderCorpus(folder, media, labelled=bool(captions))
    if str(captions).endswith(".jsonl"):
        return JsonLinesCorpus(captions, folder, media)
    raise ValueError(f"config.corpus.captions is {captions!r}; it may be 'txt', a .jsonl file, or ''")


class FolderCorpus(Listing):
    """Files of a folder, sorted by their path in it, which without its suffix is their id; see `folder_corpus`."""

    def __init__(self, folder: str, media: str, labelled: bool):
        self._folder, self._suffixes = existing("folder", folder, "folder"), media_suffixes(media)
        self._labelled = labelled
        self._paths = Strings(_walk(self._folder, "", self._suffixes))
        names = (self._read(i)[0] for i in range(len(self._paths)))
        self._close_list(f"{folder}, searched for {', '.join(self._suffixes)},", array("q", map(hash, names)))

    def _read(self, index: int) -> tuple[str, str]:
        path = self._paths[index]
        return os.path.splitext(path)[0], path

    def _item(self, name: str, path: str) -> Item:
        caption, path = None, _existing_media(name, self._folder, path, self._suffixes)
        if self._labelled:
            beside = os.path.splitext(path)[0] + ".txt"
            if not os.path.isfile(beside):
                raise BadItem(name, f"its caption {beside} is missing")
            with open(beside, "rb") as stream:
                caption = clean_caption(name, stream.read())
        return Item(name, caption, path, _suffix(path))


class JsonLinesCorpus(Listing):
    """Lines `{"file": "a/b.mp4", "caption": "..."}`, also "video" or "path", and "text"; see `folder_corpus`.

    The id of a line is its "id", or else the path without the suffix.
    """

    def __init__(self, file: str, folder: str, media: str):
        self._file, self._folder = existing("captions", file, "file"), existing("folder", folder, "folder")
        self._suffixes = media_suffixes(media)
        offsets, hashes = array("q"), array("q")
        with open(self._file, "rb") as stream:
            lines = _TextLines(stream)
            start = lines.position
            for line in lines:
                if line.strip():
                    offsets.append(start)
                    hashes.append(hash(self._parse(line, start)[0]))
                start = lines.position
        offsets.append(start)
        self._lines = np.array(offsets)
        self._close_list(file, hashes)

    def _parse(self, line: str, start: int) -> tuple[str, dict[str, Any] | BadItem]:
        name = f"{os.path.basename(self._file)}@{start}"
        try:
            fields = json.loads(line.strip())
        except (ValueError, RecursionError) as error:
            return name, BadItem(name, f"its line is not JSON ({error})")
        path = first_of(fields, ("file", "video", "path"))
        if not isinstance(path, str):
            return name, BadItem(name, "its line names no file (file, video or path)")
        given = first_of(fields, ("id",))
        return (os.path.splitext(path)[0] if given is None else str(given)), {**fields, "file": path}

    def _read(self, index: int) -> tuple[str, dict[str, Any] | BadItem]:
        line = _read_between(self._file, self._lines, index).decode("utf-8", "surrogateescape")
        return self._parse(line, int(self._lines[index]))

    def _item(self, name: str, fields: dict[str, Any]) -> Item:
        caption = clean_caption(name, first_of(fields, CAPTION_KEYS))
        path = _existing_media(name, self._folder, fields["file"], self._suffixes)
        return Item(name, caption, path, _suffix(path))


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


class _TextLines:
    """Lines of a file of UTF-8 and the byte position behind them; bytes that are not UTF-8 become surrogates."""

    def __init__(self, stream: BinaryIO):
        mark = stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        self.position = stream.seek(len(codecs.BOM_UTF8) if mark else 0)
        self._stream = stream

    def __iter__(self) -> Iterator[str]:
        for line in self._stream:
            self.position += len(line)
            yield line.decode("utf-8", "surrogateescape")


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


def _existing_media(name: str, folder: str, path: str, *suffixes: Sequence[str]) -> str:
    """The whole path of an entry's file; raises BadItem if there is no such file of these suffixes in the folder."""
    whole, allowed = os.path.normpath(os.path.join(folder, path)), [s for some in suffixes for s in some]
    if not whole.startswith(os.path.join(folder, "")):
        raise BadItem(name, f"its file {path} is not in {folder}")
    if _suffix(whole) not in allowed:
        raise BadItem(name, f"its file {whole} ends in none of {', '.join(allowed)}")
    if not os.path.isfile(whole):
        raise BadItem(name, f"its file {whole} is missing")
    return whole


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _walk(root: str, inside: str, suffixes: Sequence[str]) -> Iterator[str]:
    """Paths within `root` of the files with these suffixes, sorted as strings."""
    names = []
    with os.scandir(os.path.join(root, inside)) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                names.append(entry.name + "/")  # so that the folder's files stand where their paths belong
            elif _suffix(entry.name) in suffixes and entry.is_file():
                names.append(entry.name)
    for name in sorted(names):
        if name.endswith("/"):
            yield from _walk(root, inside + name, suffixes)
        else:
            yield inside + name


def _read_between(path: str, offsets: np.ndarray, index: int) -> bytes:
    """The bytes from one offset to the next, of a file that ends at the last of them."""
    with open(path, "rb") as stream:
        if os.fstat(stream.fileno()).st_size != offsets[-1]:
            raise ValueError(f"{path} has changed since it was listed")
        stream.seek(offsets[index])
        return stream.read(offsets[index + 1] - offsets[index])


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
