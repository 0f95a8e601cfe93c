"""What a model is asked for in an evaluation: captions, how many videos of each, and the seed of every video."""

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from videogen_jax.metrics import ucf101
from videogen_jax.metrics.caption_files import read_caption_file
from videogen_jax.shapes import world

SHAPES = "shapes"
PROMPTS_FROM = ("sentences", "class_names")
_CARDINALITIES = (len(world.COLOURS), len(world.SHAPES), len(world.MOTIONS))


class Caption(NamedTuple):
    """A caption, what it is known by in its source, and how many videos are made of it."""

    id: str
    text: str
    videos: int = 1


class Example(NamedTuple):
    """A video to be made: the caption's id, its text, and the seed."""

    id: str
    prompt: str
    seed: int


@dataclasses.dataclass(frozen=True)
class Captions:
    """Captions of one source.

    Attributes:
      source: "shapes", "ucf101" or "file".
      split: what the set is called in `metrics.json`; in the shapes world the split.
      captions: in an order in which a longer list only adds to a shorter one.
      identity: what decides, besides split and seed, which caption stands where.
      described: the ids of the real videos that the captions were written for, or None if there are none.
    """

    source: str
    split: str
    captions: tuple[Caption, ...]
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    described: frozenset[str] | None = None

    def examples(self, seed: int) -> dict[str, Example]:
        """The videos to be made by key: first one of each caption, then the second ones, and so on."""
        return {
            f"{repeat}-{number:04d}": Example(caption.id, caption.text, example_seed(seed, repeat, number))
            for repeat in range(max(caption.videos for caption in self.captions))
            for number, caption in enumerate(self.captions)
            if repeat < caption.videos
        }


def example_seed(seed: int, repeat: int, number: int) -> int:
    """The seed of a prompt's video in a repeat: prompts and repeats are independent of one another."""
    return int(np.random.SeedSequence((seed, repeat, number)).generate_state(1)[0])


def build_captions(config: Any, split: str) -> Captions:
    """The captions of an evaluation's config: those of `config.captions`, or of the shapes world where it has none.

    Args:
      config: `captions` with a `source` and the source's fields; or `prompts`, `seeds`. Besides `seed`.
      split: of the shapes world.

    Raises:
      ValueError: names the field or the file that is wrong.
    """
    if "captions" not in config:
        return shapes_captions(config.prompts, split, config.seed, config.seeds)
    sources = {"ucf101": ucf101_captions, "file": file_captions}
    fields = config.captions.to_dict()
    source = fields.pop("source", None)
    if source not in sources:
        raise ValueError(f"config.captions.source is {source!r}, but must be one of {', '.join(sources)}")
    return sources[source](**checked_fields("captions", fields, sources[source]), seed=config.seed)


def checked_fields(section: str, fields: Mapping[str, Any], build: Callable[..., Any]) -> Mapping[str, Any]:
    """The fields of a section of the config, if they are those that `build` takes by position.

    Raises:
      ValueError: one is unknown or missing.
    """
    parameters = inspect.signature(build).parameters.values()
    allowed = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
    for name in fields:
        if name not in allowed:
            raise ValueError(f"config.{section}.{name} is unknown; there may be {', '.join(allowed)}")
    for name in allowed:
        if name not in fields:
            raise ValueError(f"config.{section}.{name} is missing; there must be {', '.join(allowed)}")
    return fields


def shapes_captions(count: int, split: str, seed: int, videos: int) -> Captions:
    """`sample_captions`, with as many videos of each."""
    texts = sample_captions(count, split, seed)
    return Captions(SHAPES, split, tuple(Caption(f"{n:04d}", text, videos) for n, text in enumerate(texts)))


def ucf101_captions(prompts_from: str, videos: int, class_counts: str, *, seed: int) -> Captions:
    """A caption for each class of UCF-101.

    Args:
      prompts_from: "sentences", see `ucf101.SENTENCES`, or "class_names", as words.
      videos: of all classes together.
      class_counts: a list of the data set's, trainlist01.txt for one: classes come as often as there, to within one
        video. "" for all alike.
      seed: decides which classes get the videos that are left over.
    """
    if prompts_from not in PROMPTS_FROM:
        raise ValueError(
            f"config.captions.prompts_from is {prompts_from!r}, but must be one of {', '.join(PROMPTS_FROM)}"
        )
    _check_count("videos", videos, least=1)
    weights = dict.fromkeys(ucf101.CLASSES, 1)
    if class_counts:
        weights = ucf101.count_classes(class_counts, "config.captions.class_counts")
    shares = share_out(videos, list(weights.values()), seed)
    texts = [ucf101.SENTENCES[name] if prompts_from == "sentences" else ucf101.words(name) for name in ucf101.CLASSES]
    captions = tuple(Caption(*caption) for caption in zip(ucf101.CLASSES, texts, shares, strict=True))
    identity = {"captions": ["ucf101", prompts_from]}
    return Captions("ucf101", f"ucf101, {prompts_from.replace('_', ' ')}", captions, identity)


def file_captions(file: str, split: str, of_each: int, videos: int, seeds: int, *, seed: int) -> Captions:
    """Captions of a file, see `read_caption_file`, in an order that the seed draws.

    Args:
      of_each: captions of each video that the file describes, drawn by the seed; 0 for all.
      videos: of those that the file describes, how many; 0 for all.
      seeds: videos made of each caption.
    """
    for name, value, least in (("of_each", of_each, 0), ("videos", videos, 0), ("seeds", seeds, 1)):
        _check_count(name, value, least)
    if not file:
        raise ValueError("config.captions.file is empty: name the file with the captions, --config.captions.file=PATH")
    found: dict[str, list[tuple[str, str]]] = {}
    for caption in read_caption_file(file, split):
        found.setdefault(caption.video, []).append((f"{caption.video}#{caption.number}", caption.text))
    if videos > len(found):
        raise ValueError(f"config.captions.videos is {videos}, but {file} describes {len(found)}")
    names = list(found)
    chosen = [names[k] for k in np.random.default_rng(seed).permutation(len(names))][: videos or None]
    captions = []
    for name in chosen:
        order = _rng(seed, name).permutation(len(found[name]))
        captions += [Caption(*found[name][k], seeds) for k in order[: of_each or None]]
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    identity = {"captions": ["file", digest, split, of_each]}
    return Captions("file", Path(file).name, tuple(captions), identity, frozenset(chosen))


def share_out(total: int, weights: Sequence[int], seed: int = 0) -> list[int]:
    """`total` in whole shares as near to `weights` as can be; what rounding leaves goes to the largest remainders.

    Equal remainders take turns as `seed` draws. Weights are at least 0 and not all 0.
    """
    exact = total * np.asarray(weights, np.int64)
    shares, rest = np.divmod(exact, sum(weights))
    order = np.random.default_rng(seed).permutation(len(weights))
    due = order[np.argsort(-rest[order], kind="stable")][: total - int(shares.sum())]
    shares[due] += 1
    return shares.tolist()


def sample_captions(count: int, split: str = "held_out", seed: int = 0) -> list[str]:
    """Captions that cover the split's colours, shapes and motions as evenly as it allows.

    No triple comes twice before each has come once; sizes and backgrounds take turns. The first n captions are the
    same for every count of at least n.

    Raises:
      ValueError: count is below 1, or there is no such split.
    """
    if count < 1:
        raise ValueError(f"the number of prompts is {count}, but must be at least 1")
    rng = np.random.default_rng(seed)
    triples = list(world.all_triples(split))
    rng.shuffle(triples)
    settings = [(size, background) for size in world.SIZES for background in world.BACKGROUNDS]
    used = dict.fromkeys(triples, 0)
    seen: list[dict[str, int]] = [{}, {}, {}]  # how often each colour, shape and motion has come

    def turn(triple: tuple[str, str, str]) -> tuple[int, int]:
        shares = zip(triple, seen, _CARDINALITIES, strict=True)
        return used[triple], sum(counts.get(value, 0) * values for value, counts, values in shares)

    captions = []
    for number in range(count):
        if number % len(settings) == 0:
            rng.shuffle(settings)
        triple = min(triples, key=turn)  # of those that are equally due, the first as shuffled
        used[triple] += 1
        for value, counts in zip(triple, seen, strict=True):
            counts[value] = counts.get(value, 0) + 1
        size, background = settings[number % len(settings)]
        captions.append(world.ShapesClip(size, *triple, background, 0.5, 0.5).caption)
    return captions


def _rng(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng((seed, *hashlib.sha256(name.encode()).digest()[:8]))


def _check_count(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"config.captions.{name} is {value}, but must be at least {least}")
