"""A log of results on disk, from which a measurement that was stopped continues."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class ResultLog:
    """A JSON-lines file: the settings first, then one record a line, each with a `key` of its own.

    Args:
      path: the file; it and its folder are created if missing.
      settings: what the records depend on, as JSON can hold it.

    Attributes:
      records: those on file, by key.

    Raises:
      ValueError: the file holds results of other settings, or is no such file.
    """

    def __init__(self, path: str | os.PathLike, settings: Mapping[str, Any]):
        self.path = Path(path)
        self.records: dict[str, dict[str, Any]] = {}
        settings = json.loads(json.dumps(settings))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]  # a line without its end was cut off as it was written
        if whole:
            try:
                header, *records = [json.loads(line) for line in whole.splitlines()]
                stored = header["settings"]
                self.records = {record["key"]: record for record in records}
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
                raise ValueError(f"{self.path} is no file of results: remove it or give another output") from error
            differing = sorted(k for k in {*stored, *settings} if stored.get(k) != settings.get(k))
            if differing:
                raise ValueError(
                    f"{self.path} holds results of another {', '.join(differing)}: "
                    "remove it, or give another output folder"
                )
        if whole != content or not whole:
            self.path.write_bytes(whole or (json.dumps({"settings": settings}) + "\n").encode())

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add records, and return when they are on disk."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))
            file.flush()
            os.fsync(file.fileno())
        self.records.update((record["key"], dict(record)) for record in records)
