"""Tar shards in the format of webdataset, whose members are read in place.

Consecutive members of a shard whose names agree up to the first dot of the base name form one sample; the part after
the dot is the member's ending. `clips/0007.mp4`, `clips/0007.txt` and `clips/0007.json` are the sample `clips/0007`.
Listing reads the headers alone.
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

# The byte ranges of a sample's video or image and of its caption. `suffix` and `caption` are indices into the tuples of
# endings, ABSENT if the sample has no such member; `suffix` is BROKEN for a shard that cannot be read to its end.
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
    """The samples of tar shards, in their order; the keys are the ids.

    A shard that is missing, truncated or not a tar file has one additional, bad entry, whose id is its path. The last
    sample of a truncated shard is listed only if it is complete.

    Args:
      shards: a path with braces or wildcards ("shards/{000000..000012}.tar"), or several.
      media: "videos" or "images".
      captions: endings of the members that hold captions, in order of preference; () or None for an unlabelled corpus.
      caption_key: key of the caption in a .json; None for "caption" or "text".

    Raises:
      ValueError: a field is wrong, or none of the shards exists.
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
        self._finish_listing(f"config.corpus.shards {shards!r}", array("q", map(hash, names)))

    def _list(self, samples: list[np.ndarray]) -> Iterator[str]:
        """Yield the names of the samples, and append the samples of each shard as an array."""
        for shard, path in enumerate(self._shards):
            shard_samples = []
            for name, sample in self._list_shard(shard, path):
                shard_samples.append(sample)
                yield name
            samples.append(np.array(shard_samples, SAMPLE))

    def _list_shard(self, shard: int, path: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the name and the fields of SAMPLE of each sample of a shard."""
        key, members = None, {}
        try:
            for name, offset, size in _members(path):
                member_key, ending = _split_name(name)
                if member_key is None:
                    continue
                if member_key != key and key is not None:
                    yield key, self._sample(shard, members)
                    members = {}
                key = member_key
                members.setdefault(ending, (offset, size))
        except tarfile.TarError as error:
            self._broken[shard] = f"it is not a complete, uncompressed tar file ({error})"
        except OSError as error:
            self._broken[shard] = f"it cannot be read ({error.strerror or error})"
        if key is not None:
            sample = self._sample(shard, members)
            if shard not in self._broken or (sample[1] != ABSENT and (sample[4] != ABSENT or not self._captions)):
                yield key, sample
        if shard in self._broken:
            yield path, (shard, BROKEN, 0, 0, ABSENT, 0, 0)

    def _sample(self, shard: int, members: Mapping[str, tuple[int, int]]) -> tuple[int, ...]:
        """Return the fields of SAMPLE; `members` maps the members' endings to their offset and size."""
        suffix = next((e for e in members if e in self._suffixes), None)
        caption = next((e for e in self._captions if e in members), None)
        return (
            *(shard, ABSENT if suffix is None else self._suffixes.index(suffix), *members.get(suffix, (0, 0))),
            *(ABSENT if caption is None else self._captions.index(caption), *members.get(caption, (0, 0))),
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
    """Expand patterns with braces and wildcards to the paths of shards, in order.

    `{000..012}` is a range of numbers with as many digits as its first; `{a,b}` is a choice. A pattern with wildcards
    (`*`, `?`, `[0-9]`) expands to the files that exist, sorted; other paths need not exist.
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
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [path for choice in choices for path in _expand_braces(before + choice + after)]


def _split_name(name: str) -> tuple[str | None, str]:
    """Split a member's name into key and ending.

    The key is None for a member that is hidden, has no ending, or is webdataset's own (`__name__/`).
    """
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, ending = base.partition(".")
    if not stem or not dot or re.match(r"__[^/]*__/", name):
        return None, ""
    return folder + slash + stem, "." + ending.lower()


def _members(path: str) -> Iterator[tuple[str, int, int]]:
    """Yield the name, offset and size of each regular member.

    Raises:
      tarfile.ReadError: after the last complete member of a truncated file.
    """
    length = os.path.getsize(path)
    with tarfile.open(path, "r:") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # otherwise tarfile keeps them in memory
            if not 0 <= member.size <= length - member.offset_data:
                raise tarfile.ReadError(f"it ends within {member.name}")
            if member.isreg() and not member.issparse():
                yield member.name, member.offset_data, member.size
        # tarfile takes a broken header for the end of the archive, which is a block of zeros.
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it has no end mark")
