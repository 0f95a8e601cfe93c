"""Captions from a file of the user's: MSR-VTT's own JSON, or a list as text, CSV or JSON lines."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from videogen_jax.data.entries import CAPTION_KEYS, BadItem, clean_caption, first_of

KEYS = (*CAPTION_KEYS, "sentence")  # names of the caption in a list
VIDEO_KEY = "video_id"


class VideoCaption(NamedTuple):
    """A caption, the id of the video that it describes, and its index among the captions of that video."""

    video: str
    number: int
    text: str


def read_caption_file(path: str | os.PathLike, split: str = "") -> list[VideoCaption]:
    """Read all captions of a file, in its order.

    Args:
      path: by its suffix
        .json: MSR-VTT's test_videodatainfo.json or videodatainfo.json, with "sentences" (each a "video_id" and a
          "caption") and "videos" (each a "video_id" and a "split"). Blank captions are left out.
        .txt: a caption a line.
        .csv: with a header that has a column caption, text or sentence, and may have a video_id.
        .jsonl: an object a line with the same fields.
        Without a video_id each caption has a video of its own, named by the line number.
      split: of a .json, the videos of this split alone; "" for all.

    Raises:
      ValueError: names the file, and the line or field that is wrong.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path, str], list[tuple[str, str]]]] = {
        ".json": _read_msrvtt,
        ".txt": _read_text,
        ".csv": _read_csv,
        ".jsonl": _read_json_lines,
    }
    if path.suffix.lower() not in readers:
        raise ValueError(f"config.captions.file is {str(path)!r}, but must end in one of {', '.join(readers)}")
    if not path.is_file():
        raise ValueError(f"config.captions.file is {path}, but there is no such file")
    try:
        pairs = readers[path.suffix.lower()](path, split)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    if not pairs:
        raise ValueError(f"{path} has no captions")
    counts: dict[str, int] = {}
    captions = []
    for video, text in pairs:
        captions.append(VideoCaption(video, counts.get(video, 0), text))
        counts[video] = counts.get(video, 0) + 1
    return captions


def _read_text(path: Path, split: str) -> list[tuple[str, str]]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return [(str(number), _clean(path, number, line)) for number, line in enumerate(lines, 1)]


def _read_csv(path: Path, split: str) -> list[tuple[str, str]]:
    pairs = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or []
        if not set(columns) & set(KEYS):
            raise ValueError(
                f"{path} has the columns {', '.join(columns) or 'none'}, but needs one of {', '.join(KEYS)}"
            )
        try:
            for row in rows:
                pairs.append(_of_row(path, rows.line_num, row))
        except csv.Error as error:
            raise ValueError(f"{path}, line {rows.line_num} is not CSV: {error}") from error
    return pairs


def _read_json_lines(path: Path, split: str) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
            pairs.append(_of_row(path, number, row))
    return pairs


def _of_row(path: Path, number: int, row: Any) -> tuple[str, str]:
    video = first_of(row, (VIDEO_KEY,))
    return str(number) if video is None else str(video), _clean(path, number, first_of(row, KEYS))


def _clean(path: Path, number: int, caption: Any) -> str:
    try:
        return clean_caption(str(number), caption)
    except BadItem as error:
        raise ValueError(f"{path}, line {number}: {error}") from error


def _read_msrvtt(path: Path, split: str) -> list[tuple[str, str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    for name in ("videos", "sentences"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise ValueError(f"{path} has no list {name!r}, as MSR-VTT's videodatainfo.json has")
    splits: dict[str, str] = {}
    for number, video in enumerate(content["videos"]):
        splits[_field(path, f"videos[{number}]", video, VIDEO_KEY)] = str(first_of(video, ("split",)) or "")
    if split and split not in splits.values():
        found = ", ".join(sorted({repr(name) for name in splits.values()})) or "no videos"
        raise ValueError(f"{path} has no videos of config.captions.split {split!r}, only {found}")
    pairs, blank = [], 0
    for number, sentence in enumerate(content["sentences"]):
        where = f"sentences[{number}]"
        video, caption = (_field(path, where, sentence, name) for name in (VIDEO_KEY, "caption"))
        if video not in splits:
            raise ValueError(f"{path}: {where} describes {video!r}, which is not among the videos")
        if split and splits[video] != split:
            continue
        if caption.strip():
            pairs.append((video, caption.strip()))
        else:
            blank += 1
    if blank:
        logging.warning("%s: %d blank captions are left out", path, blank)
    return pairs


def _field(path: Path, where: str, entry: Any, name: str) -> str:
    if not isinstance(entry, dict) or not isinstance(entry.get(name), str):
        raise ValueError(f"{path}: {where} has no text {name!r}")
    return entry[name]
