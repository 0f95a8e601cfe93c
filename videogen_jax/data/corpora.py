"""Corpora of videos or images with captions, listed for random access in little memory.

A corpus of ten million entries takes a few hundred megabytes: it holds positions in files, whose contents are read on
access. Nothing here imports JAX, so that worker processes start quickly. Corpora and items can be pickled, hold no open
files and may be used from several threads.
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
    absolute_path,
    clean_caption,
    first_of,
    media_suffixes,
    printable,
    suffix_of,
)
from videogen_jax.data.tar_shards import WebdatasetCorpus
from videogen_jax.data.tfds_records import TfdsCorpus


def build_corpus(config: Mapping[str, Any]) -> Corpus:
    """Build a corpus from its settings.

    Args:
      config: `kind` (csv, folder, webdataset or tfds) and the fields of that kind.

    Raises:
      ValueError: a field is unknown, missing or wrong, or a file cannot be listed; the message names it.
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
    """The rows of a CSV table such as WebVid's; the file of a row is `folder/<page_dir>/<videoid><suffix>`.

    Args:
      file: the table, UTF-8, with a header.
      folder: contains the files.
      suffix: suffix of the files; "" if the id column includes it.
      id_column: column of the entries' ids, which are the file names.
      page_column: column of the sub-folders of `folder`; None or "" if there are none.
      caption_column: column of the captions; None or "" for an unlabelled corpus.

    Raises:
      ValueError: the table cannot be listed, or lacks a column; the message names the field or file.
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
        self._file, self._folder = absolute_path("file", file, "file"), absolute_path("folder", folder, "folder")
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
                raise ValueError(f"the header of {file} cannot be parsed ({error})") from error
            for field, column in (("id", id_column), ("page", page_column), ("caption", caption_column)):
                if column not in header and (column or field == "id"):
                    found = printable(", ".join(header)) or "none"
                    raise ValueError(
                        f"{file} lacks the column {column!r} of config.corpus.{field}_column; found: {found}"
                    )
            self._width = len(header)
            self._id_index = header.index(id_column)
            self._page_index = header.index(page_column) if page_column else None
            self._caption_index = header.index(caption_column) if caption_column else None
            while True:
                start = lines.position
                try:
                    row = next(rows)
                except StopIteration:
                    break
                except csv.Error:
                    row = None  # _read raises the error again
                if row != []:  # blank lines are skipped
                    offsets.append(start)
                    hashes.append(hash(self._name(row, start)))
        offsets.append(lines.position)
        self._rows = np.array(offsets)
        self._finish_listing(file, hashes)

    def _name(self, row: list[str] | None, start: int) -> str:
        if row is None or len(row) <= self._id_index:
            return f"{os.path.basename(self._file)}@{start}"
        return row[self._id_index].strip()

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
            return name, BadItem(name, f"its row has {len(row)} columns, but the header has {self._width}")
        return name, row

    def _item(self, name: str, row: list[str]) -> Item:
        caption = None if self._caption_index is None else clean_caption(name, row[self._caption_index])
        page = "" if self._page_index is None else row[self._page_index].strip()
        path = _existing_media(name, self._folder, os.path.join(page, name + self._suffix), *MEDIA.values())
        return Item(name, caption, path, suffix_of(path))


def folder_corpus(folder: str, media: str = "videos", captions: str | None = "txt") -> Corpus:
    """List the videos or images of a folder and its sub-folders.

    Args:
      folder: hidden files and links to other folders are skipped.
      media: "videos" or "images".
      captions: "txt": `a/b.txt` is the caption of `a/b.mp4`. A .jsonl file: its lines are the entries. None or "":
        the corpus is unlabelled.

    Raises:
      ValueError: a field is wrong, or there are no entries.
    """
    if not captions or captions == "txt":
        return FolderCorpus(folder, media, labelled=bool(captions))
    if str(captions).endswith(".jsonl"):
        return JsonLinesCorpus(captions, folder, media)
    raise ValueError(f"config.corpus.captions is {captions!r}; it may be 'txt', a .jsonl file, or ''")


class FolderCorpus(Listing):
    """The files of a folder, sorted by their path in it; the path without its suffix is the id. See `folder_corpus`."""

    def __init__(self, folder: str, media: str, labelled: bool):
        self._folder, self._suffixes = absolute_path("folder", folder, "folder"), media_suffixes(media)
        self._labelled = labelled
        self._paths = Strings(_walk(self._folder, "", self._suffixes))
        names = (self._read(i)[0] for i in range(len(self._paths)))
        self._finish_listing(f"{folder}, searched for {', '.join(self._suffixes)},", array("q", map(hash, names)))

    def _read(self, index: int) -> tuple[str, str]:
        path = self._paths[index]
        return os.path.splitext(path)[0], path

    def _item(self, name: str, path: str) -> Item:
        caption, path = None, _existing_media(name, self._folder, path, self._suffixes)
        if self._labelled:
            caption_path = os.path.splitext(path)[0] + ".txt"
            if not os.path.isfile(caption_path):
                raise BadItem(name, f"its caption {caption_path} is missing")
            with open(caption_path, "rb") as stream:
                caption = clean_caption(name, stream.read())
        return Item(name, caption, path, suffix_of(path))


class JsonLinesCorpus(Listing):
    """The lines `{"file": "a/b.mp4", "caption": "..."}` of a .jsonl file; see `folder_corpus`.

    "video" and "path" are read as "file", and "text" as "caption". The id of a line is its "id" if there is one,
    otherwise the path without the suffix.
    """

    def __init__(self, file: str, folder: str, media: str):
        self._file, self._folder = absolute_path("captions", file, "file"), absolute_path("folder", folder, "folder")
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
        self._finish_listing(file, hashes)

    def _parse(self, line: str, start: int) -> tuple[str, dict[str, Any] | BadItem]:
        name = f"{os.path.basename(self._file)}@{start}"
        try:
            fields = json.loads(line.strip())
        except (ValueError, RecursionError) as error:
            return name, BadItem(name, f"its line is not JSON ({error})")
        path = first_of(fields, ("file", "video", "path"))
        if not isinstance(path, str):
            return name, BadItem(name, "its line names no file (file, video or path)")
        explicit_id = first_of(fields, ("id",))
        return (os.path.splitext(path)[0] if explicit_id is None else str(explicit_id)), {**fields, "file": path}

    def _read(self, index: int) -> tuple[str, dict[str, Any] | BadItem]:
        line = _read_between(self._file, self._lines, index).decode("utf-8", "surrogateescape")
        return self._parse(line, int(self._lines[index]))

    def _item(self, name: str, fields: dict[str, Any]) -> Item:
        caption = clean_caption(name, first_of(fields, CAPTION_KEYS))
        path = _existing_media(name, self._folder, fields["file"], self._suffixes)
        return Item(name, caption, path, suffix_of(path))


class _TextLines:
    """The lines of a UTF-8 file, iterated while tracking the byte position; invalid bytes become surrogates.

    Attributes:
      position: of the byte after the last line that was read.
    """

    def __init__(self, stream: BinaryIO):
        has_mark = stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        self.position = stream.seek(len(codecs.BOM_UTF8) if has_mark else 0)
        self._stream = stream

    def __iter__(self) -> Iterator[str]:
        for line in self._stream:
            self.position += len(line)
            yield line.decode("utf-8", "surrogateescape")


def _existing_media(name: str, folder: str, path: str, *suffixes: Sequence[str]) -> str:
    """Return the absolute path of an entry's file.

    Raises:
      BadItem: the file is missing, is outside the folder, or has none of the suffixes.
    """
    full_path, allowed = os.path.normpath(os.path.join(folder, path)), [s for group in suffixes for s in group]
    if not full_path.startswith(os.path.join(folder, "")):
        raise BadItem(name, f"its file {path} is not in {folder}")
    if suffix_of(full_path) not in allowed:
        raise BadItem(name, f"its file {full_path} ends in none of {', '.join(allowed)}")
    if not os.path.isfile(full_path):
        raise BadItem(name, f"its file {full_path} is missing")
    return full_path


def _walk(root: str, subfolder: str, suffixes: Sequence[str]) -> Iterator[str]:
    """Yield the paths, relative to `root`, of the files with these suffixes, sorted as strings."""
    names = []
    with os.scandir(os.path.join(root, subfolder)) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                names.append(entry.name + "/")  # sorts the folder's files by their paths
            elif suffix_of(entry.name) in suffixes and entry.is_file():
                names.append(entry.name)
    for name in sorted(names):
        if name.endswith("/"):
            yield from _walk(root, subfolder + name, suffixes)
        else:
            yield subfolder + name


def _read_between(path: str, offsets: np.ndarray, index: int) -> bytes:
    """Read the bytes from offset `index` to the next; the last offset is the end of the file.

    Raises:
      ValueError: the file's size has changed.
    """
    with open(path, "rb") as stream:
        if os.fstat(stream.fileno()).st_size != offsets[-1]:
            raise ValueError(f"{path} has changed since it was listed")
        stream.seek(offsets[index])
        return stream.read(offsets[index + 1] - offsets[index])
