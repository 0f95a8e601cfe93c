"""Tar shards in the manner of webdataset: which samples they hold, and their members read in place.

Members of one shard that follow each other and agree up to the first dot of their base name are one sample; what is
behind the dot says what a member is. `clips/0007.mp4`, `clips/0007.txt` and `clips/0007.json` are the sample
`clips/0007`. Listing reads the headers alone.
"""

import glob
import json
import os
import re
import tarfile
from array import array
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from videogen_jax.data.entries import (
    CAPTION_KEYS,
    BadItem,
    FileRange,
    Item,
    Listing,
    Strings,
    clean_caption,
    first_of,
    media_suffixes,
)

# A sample: where its video or image and its caption are, in bytes. `suffix` and `caption` are places in the tuples of
# endings, ABSENT if the sample has no such member; BROKEN stands for a shard that cannot be read to its end.
SAMPLE = np.dtype(
    [
        ("shard", np.int32),
        ("suffix", np.int8),
        ("offset", np.int64),
        ("size", np.int64),
        ("caption", np.int8),
        ("caption_offset", np.int64),
        ("caption_size", np.int64),
    ]
)
ABSENT, BROKEN = -1, -2


class WebdatasetCorpus(Listing):
    """Samples of tar shards, in their order; their keys are their ids.

    A shard that is missing, cut off or no tar gives one more entry, a bad one, whose id is its path. Of a shard that is
    cut off, the last sample is listed only if it has all it needs.

    Args:
      shards: a path with braces or wildcards ("shards/{000000..000012}.tar"), or several.
      media: "videos" or "images".
      captions: endings of the members that hold captions, the best first; () or None for an unlabelled corpus.
      caption_key: of the caption in a .json; None for "caption" or "text".
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        media: str = "videos",
        captions: Sequence[str] | None = ("txt", "json"),
        caption_key: str | None = None,
    ):
        self._suffixes = media_suffixes(media)
        if isinstance(captions, str) or not set(captions or ()) <= {"txt", "json"}:
            raise ValueError(f"config.corpus.captions is {captions!r}; it may be a list of 'txt' and 'json', or None")
        self._captions = tuple(f".{ending}" for ending in captions or ())
        self._caption_keys = CAPTION_KEYS if caption_key is None else (caption_key,)
        self._shards = [os.path.abspath(path) for path in expand_shards(shards)]
        if not any(os.path.exists(path) for path in self._shards):
            raise ValueError(f"config.corpus.shards is {shards!r}, but there is no such file")
        self._broken: dict[int, str] = {}
        samples: list[np.ndarray] = []
        self._names = Strings(self._list(samples))
        self._samples = np.concatenate(samples)
        names = (self._names[i] for i in range(len(self._names)))
        self._close_list(f"config.corpus.shards {shards!r}", array("q", map(hash, names)))

    def _list(self, samples: list[np.ndarray]) -> Iterator[str]:
        """Gives the samples' names; appends the samples themselves, an array for each shard."""
        for shard, path in enumerate(self._shards):
            rows = []
            for name, row in self._list_shard(shard, path):
                rows.append(row)
                yield name
            samples.append(np.array(rows, SAMPLE))

    def _list_shard(self, shard: int, path: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        key, found = None, {}
        try:
            for name, offset, size in _members(path):
                this, ending = _split_name(name)
                if this is None:
                    continue
                if this != key and key is not None:
                    yield key, self._sample(shard, found)
                    found = {}
                key = this
                found.setdefault(ending, (offset, size))
        except tarfile.TarError as error:
            self._broken[shard] = f"it is not a whole, uncompressed tar file ({error})"
        except OSError as error:
            self._broken[shard] = f"it cannot be read ({error.strerror or error})"
        if key is not None:
            sample = self._sample(shard, found)
            if shard not in self._broken or (sample[1] != ABSENT and (sample[4] != ABSENT or not self._captions)):
                yield key, sample
        if shard in self._broken:
            yield path, (shard, BROKEN, 0, 0, ABSENT, 0, 0)

    def _sample(self, shard: int, found: Mapping[str, tuple[int, int]]) -> tuple[int, ...]:
        """The fields of SAMPLE; `found` are offset and size of the members by their endings."""
        suffix = next((e for e in found if e in self._suffixes), None)
        caption = next((e for e in self._captions if e in found), None)
        return (
            *(shard, ABSENT if suffix is None else self._suffixes.index(suffix), *found.get(suffix, (0, 0))),
            *(ABSENT if caption is None else self._captions.index(caption), *found.get(caption, (0, 0))),
        )

    def _read(self, index: int) -> tuple[str, np.void]:
        return self._names[index], self._samples[index]

    def _item(self, name: str, sample: np.void) -> Item:
        path = self._shards[sample["shard"]]
        if sample["suffix"] == BROKEN:
            raise BadItem(name, self._broken[int(sample["shard"])])
        if sample["suffix"] == ABSENT:
            raise BadItem(name, f"its sample in {path} has none of {', '.join(self._suffixes)}")
        if self._captions and sample["caption"] == ABSENT:
            raise BadItem(name, f"its sample in {path} has no {' or '.join(self._captions)}")
        caption = self._caption(name, path, sample) if self._captions else None
        suffix = self._suffixes[sample["suffix"]]
        return Item(name, caption, path, suffix, int(sample["offset"]), int(sample["size"]))

    def _caption(self, name: str, path: str, sample: np.void) -> str:
        try:
            with FileRange(path, int(sample["caption_offset"]), int(sample["caption_size"])) as member:
                caption = member.readall()
        except OSError as error:
            raise BadItem(name, f"its shard {path} cannot be read ({error.strerror or error})") from error
        if self._captions[sample["caption"]] == ".json":
            try:
                fields = json.loads(caption.decode("utf-8-sig", "surrogateescape"))
            except (ValueError, RecursionError) as error:
                raise BadItem(name, f"its .json is not JSON ({error})") from error
            caption = first_of(fields, self._caption_keys)
            if caption is None:
                raise BadItem(name, f"its .json has no {' or '.join(self._caption_keys)}")
        return clean_caption(name, caption)


def expand_shards(patterns: str | Sequence[str]) -> list[str]:
    """Paths of shards, in order, from patterns with braces and wildcards.

    `{000..012}` counts, with as many digits as its beginning has; `{a,b}` chooses. Where there are wildcards (`*`, `?`,
    `[0-9]`), the paths are those of the files that exist, sorted; else they are given whether they exist or not.
    """
    paths = []
    for pattern in [patterns] if isinstance(patterns, (str, os.PathLike)) else patterns:
        for path in _expand_braces(os.path.expanduser(pattern)):
            paths += sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else [path]
    return paths


def _expand_braces(pattern: str) -> list[str]:
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if braces is None:
        return [pattern]
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", braces[1]):
        digits = len(numbers[1]) if numbers[1].startswith("0") else 0
        choices = [f"{i:0{digits}}" for i in range(int(numbers[1]), int(numbers[2]) + 1)]
    else:
        choices = braces[1].split(",")
    before, behind = pattern[: braces.start()], pattern[braces.end() :]
    return [path for choice in choices for path in _expand_braces(before + choice + behind)]


def _split_name(name: str) -> tuple[str | None, str]:
    """A member's key and ending; None for one that is hidden, has no ending, or is webdataset's own (`__name__/`)."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, ending = base.partition(".")
    if not stem or not dot or re.match(r"__[^/]*__/", name):
        return None, ""
    return folder + slash + stem, "." + ending.lower()


def _members(path: str) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of the regular members; raises tarfile.ReadError behind the last that is whole."""
    length = os.path.getsize(path)
    with tarfile.open(path, "r:") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # else they stay in memory
            if not 0 <= member.size <= length - member.offset_data:
                raise tarfile.ReadError(f"it ends within {member.name}")
            if member.isreg() and not member.issparse():
                yield member.name, member.offset_data, member.size
        # tarfile takes a broken header for the end, which is a block of zeros.
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it has no end mark")
