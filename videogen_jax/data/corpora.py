"""What there is to train on: videos, images and their captions, listed with random access and little memory.

A corpus of ten million entries takes a few hundred megabytes: kept are positions in files, and what stands there is
read when it is asked for. Nothing here imports JAX, so that worker processes start quickly. Corpora and items can be
pickled, hold no open files, and may be used from several threads.
"""

import codecs
import csv
import inspect
import io
import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from videogen_jax.data.entries import (
    CAPTION_KEYS,
    IMAGE_SUFFIXES,
    MEDIA,
    VIDEO_SUFFIXES,
    BadItem,
    Corpus,
    Item,
    Listing,
    Strings,
    clean_caption,
    existing,
    first_of,
    media_suffixes,
    printable,
    suffix_of,
)
from videogen_jax.data.tar_shards import WebdatasetCorpus
from videogen_jax.data.tfds_records import TfdsCorpus


def build_corpus(config: Mapping[str, Any]) -> Corpus:
    """The corpus of plain settings: `kind` (csv, folder, webdataset or tfds) and the fields of that kind.

    Raises:
      ValueError: naming the field that is unknown, missing or wrong, or the file that cannot be listed.
    """
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
        return Item(name, caption, path, suffix_of(path))


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
        return Item(name, caption, path, suffix_of(path))


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
        return Item(name, caption, path, suffix_of(path))


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


def _existing_media(name: str, folder: str, path: str, *suffixes: Sequence[str]) -> str:
    """The whole path of an entry's file; raises BadItem if there is no such file of these suffixes in the folder."""
    whole, allowed = os.path.normpath(os.path.join(folder, path)), [s for some in suffixes for s in some]
    if not whole.startswith(os.path.join(folder, "")):
        raise BadItem(name, f"its file {path} is not in {folder}")
    if suffix_of(whole) not in allowed:
        raise BadItem(name, f"its file {whole} ends in none of {', '.join(allowed)}")
    if not os.path.isfile(whole):
        raise BadItem(name, f"its file {whole} is missing")
    return whole


def _walk(root: str, inside: str, suffixes: Sequence[str]) -> Iterator[str]:
    """Paths within `root` of the files with these suffixes, sorted as strings."""
    names = []
    with os.scandir(os.path.join(root, inside)) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                names.append(entry.name + "/")  # so that the folder's files stand where their paths belong
            elif suffix_of(entry.name) in suffixes and entry.is_file():
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
