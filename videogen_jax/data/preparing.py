"""Preparing a corpus: clips are cut, encoded by the frozen networks and written in shards.

The corpus is cut into as many pieces as there are shards, by index alone, and a shard is made from its piece alone: who
makes it, and when, leaves no trace in it. Processes therefore need not know of each other. A shard is finished when its
note stands beside it; the process that finds all notes writes what describes the whole.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from videogen_jax.data.clips import Clip, ClipRules, Scan, read_clips
from videogen_jax.data.corpora import build_corpus
from videogen_jax.data.decoding import BadVideo
from videogen_jax.data.encoding import Encoder, as_stored, load_encoder
from videogen_jax.data.entries import BadItem, Corpus, Item
from videogen_jax.data.prepared import RECIPE_NAME, VERSION, ShardWriter, write_metadata
from videogen_jax.data.skipped import SkippedEntries, TooManySkipped
from videogen_jax.data.statistics_page import Tally, statistics_page
from videogen_jax.data.workers import Workers
from videogen_jax.runtime.files import save_json, write_atomically
from videogen_jax.stages.stage import Params, build_network
from videogen_jax.weights.fingerprint import fingerprint
from videogen_jax.weights.hub import resolve
from videogen_jax.weights.model_folder import ModelFolder

NOTES = "shards"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which entries go into which shard, and where it lies.

    Attributes:
      data_dir: where TFDS data sets are kept; this one is in `<data_dir>/<name>/1.0.0`.
      name: of the data set.
      split: "train", or another name of a split.
      num_entries: of the corpus.
      entries_per_shard: how many of them go into a shard.
    """

    data_dir: str
    name: str
    split: str
    num_entries: int
    entries_per_shard: int

    def __post_init__(self):
        if self.entries_per_shard < 1:
            raise ValueError(f"config.entries_per_shard is {self.entries_per_shard}; it must be at least 1")
        if not self.name.isidentifier() or self.name != self.name.lower():
            raise ValueError(f"config.name is {self.name!r}; TFDS wants lower-case letters, digits and underscores")

    @property
    def folder(self) -> Path:
        return Path(self.data_dir) / self.name / VERSION

    @property
    def num_shards(self) -> int:
        return -(-self.num_entries // self.entries_per_shard)

    def entries(self, shard: int) -> range:
        begin = shard * self.entries_per_shard
        return range(begin, min(begin + self.entries_per_shard, self.num_entries))

    def path(self, shard: int) -> Path:
        return self.folder / f"{self.name}-{self.split}.array_record-{shard:05d}-of-{self.num_shards:05d}"

    def note(self, shard: int) -> Path:
        return self.folder / NOTES / f"{self.split}-{shard:05d}-of-{self.num_shards:05d}.json"

    def finished(self, shard: int) -> dict[str, Any] | None:
        """The note of a finished shard, else None."""
        with contextlib.suppress(FileNotFoundError):
            return json.loads(self.note(shard).read_text())
        return None


def prepare(
    plan: Plan,
    corpus: Corpus,
    rules: ClipRules,
    encoder: Encoder,
    params: Params,
    *,
    recipe: Mapping[str, Any],
    batch_size: int,
    reference_frame: str = "first",
    num_workers: int = 1,
    time_limit: float = 120.0,
    max_skipped_fraction: float = 0.05,
    process: int = 0,
    num_processes: int = 1,
    read: Any = read_clips,
) -> bool:
    """Makes this process's share of the shards, those that are not there yet.

    Args:
      encoder, params: see `encoding.load_encoder`; its arrays are called `latents_R`.
      recipe: all that the data set depends on; kept in the folder, and compared with what is there.
      batch_size: clips encoded together; a multiple of this process's devices.
      reference_frame: "first" or "random", the frame of a clip whose latents are its reference.
      num_workers, time_limit: decoding processes, and seconds that one entry may take in them.
      max_skipped_fraction: of the entries; more bad ones than that stop the run.
      process, num_processes: this process makes the shards k with k % num_processes == process.
      read: stands in for `read_clips` in tests.

    Returns: whether the data set is finished now, be it by this process or by others.

    Raises:
      ValueError: what is in the folder was made by another recipe.
      TooManySkipped: see max_skipped_fraction.
    """
    if reference_frame not in ("first", "random"):
        raise ValueError(f"config.reference_frame is {reference_frame!r}; it may be first or random")
    devices = jax.local_devices()
    if batch_size % len(devices):
        raise ValueError(f"config.batch_size is {batch_size}, which does not divide by the {len(devices)} devices")
    arrays = array_shapes(encoder, rules.num_frames)
    check_recipe(plan, {**recipe, "arrays": {name: list(shape) for name, shape in arrays.items()}})
    mine = range(process, plan.num_shards, num_processes)
    skipped = SkippedEntries(max_skipped_fraction, sum(len(plan.entries(shard)) for shard in mine))
    todo = []
    for shard in mine:
        note = plan.finished(shard)
        if note is None:
            todo.append(shard)
        else:
            skipped.add_finished(len(plan.entries(shard)), note["skipped"])
    encode = Encoding(encoder, params, batch_size, reference_frame, rules, devices)
    if todo:
        logging.info("%d of %d shards are to be made by this process, in %s", len(todo), plan.num_shards, plan.folder)
        _make_shards(plan, corpus, rules, encode, arrays, todo, skipped, Workers(read, num_workers, time_limit))
    return finish(plan, arrays, max_skipped_fraction)


def _make_shards(
    plan: Plan,
    corpus: Corpus,
    rules: ClipRules,
    encode: "Encoding",
    arrays: Mapping[str, tuple[int, ...]],
    todo: list[int],
    skipped: SkippedEntries,
    workers: Workers,
) -> None:
    items: dict[int, Item] = {}

    def tasks() -> Iterator[tuple[Item, ClipRules] | BadVideo]:
        for shard in todo:
            for index in plan.entries(shard):
                try:
                    item = corpus.item(index)
                except BadItem as error:
                    yield BadVideo(str(error))
                    continue
                if encode.needs_captions and item.caption is None:
                    raise ValueError("config.corpus has no captions: set config.text to False, or name them")
                items[index] = item
                yield item, rules

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    total = sum(len(plan.entries(shard)) for shard in todo)
    with workers, Progress(*columns) as bar:
        line, clips = bar.add_task("entries", total=total, status=""), 0
        outcomes = workers.map(tasks())
        for shard in todo:
            tally, skips = Tally(), []
            with ShardWriter(plan.path(shard), arrays) as writer:
                for index in plan.entries(shard):
                    outcome: Scan | BadVideo = next(outcomes)
                    item = items.pop(index, None)
                    bad = None
                    if isinstance(outcome, BadVideo):
                        bad = {"index": index, "id": corpus.id(index), "reason": str(outcome)}
                        skips.append(bad)
                        logging.warning("skipped %s: %s", bad["id"], outcome)
                    else:
                        tally.add_scan(outcome)
                        for clip in outcome.clips:
                            _write(writer, tally, encode.add(item, clip))
                        clips += len(outcome.clips)
                    skipped.add(bad)
                    bar.update(line, advance=1, status=f"{clips} clips, {skipped.bad} skipped")
                _write(writer, tally, encode.flush())
            save_json(plan.note(shard), {"skipped": skips, **tally.to_json()})


def _write(writer: ShardWriter, tally: Tally, records: list[dict[str, Any]]) -> None:
    for record in records:
        writer.write(record)
        tally.add_record(record)


class Encoding:
    """Clips in, records out, a batch at a time: while one is being encoded the one before is written."""

    def __init__(
        self, encoder: Encoder, params: Params, batch_size: int, reference_frame: str, rules: ClipRules, devices: list
    ):
        self._encoder, self._batch_size, self._rules = encoder, batch_size, rules
        self._random_reference = reference_frame == "random"
        mesh = Mesh(np.array(devices), ("data",))
        self._sharding = NamedSharding(mesh, PartitionSpec("data"))
        self._params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))

        @jax.jit
        def encode(params, batch, reference):
            made = encoder.encode(params, batch)
            for name in encoder.resolutions:
                chosen = jax.numpy.take_along_axis(made[name], reference[:, None, None, None, None], axis=1)
                made[name.replace("latents", "reference")] = chosen
            return jax.tree.map(as_stored, made)

        self._encode = encode
        self._waiting: list[tuple[Item, Clip]] = []
        self._running: tuple[list[tuple[Item, Clip]], dict[str, jax.Array]] | None = None

    @property
    def needs_captions(self) -> bool:
        return self._encoder.text is not None

    def add(self, item: Item, clip: Clip) -> list[dict[str, Any]]:
        """Takes a clip; gives the records that are ready."""
        self._waiting.append((item, clip))
        return self._start() if len(self._waiting) == self._batch_size else []

    def flush(self) -> list[dict[str, Any]]:
        """The records of everything that was added."""
        records = self._start() if self._waiting else []
        return records + self._collect()

    def _start(self) -> list[dict[str, Any]]:
        entries, self._waiting = self._waiting, []
        padded = entries + [entries[-1]] * (self._batch_size - len(entries))
        batch = {"video": np.stack([clip.frames for _, clip in padded])}
        if self.needs_captions:
            batch["tokens"] = self._encoder.tokens([item.caption for item, _ in padded])
        reference = np.array([self._reference(item, clip) for item, clip in padded], np.int32)
        started = self._encode(self._params, *jax.device_put((batch, reference), self._sharding))
        records = self._collect()
        self._running = (entries, started)
        return records

    def _collect(self) -> list[dict[str, Any]]:
        if self._running is None:
            return []
        (entries, arrays), self._running = self._running, None
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        return [
            {
                "id": item.id,
                "caption": item.caption or "",
                "start": clip.start,
                "fps": clip.fps,
                "motion": clip.motion,
                **{name: array[row] for name, array in arrays.items()},
            }
            for row, (item, clip) in enumerate(entries)
        ]

    def _reference(self, item: Item, clip: Clip) -> int:
        if not self._random_reference:
            return 0
        return int(self._rules.rng(f"{item.id} {clip.start:.6f}").integers(len(clip.frames)))


def array_shapes(encoder: Encoder, num_frames: int) -> dict[str, tuple[int, ...]]:
    """The shape of every array of a record."""
    shapes = encoder.shapes(num_frames)
    references = {
        name.replace("latents", "reference"): (1, *shape[1:])
        for name, shape in shapes.items()
        if name in encoder.resolutions
    }
    return {**shapes, **references}


def check_recipe(plan: Plan, recipe: Mapping[str, Any]) -> None:
    """Keeps the recipe with the data set. ValueError: another one is there, naming what differs."""
    path = plan.folder / RECIPE_NAME
    plan.folder.mkdir(parents=True, exist_ok=True)
    (plan.folder / NOTES).mkdir(exist_ok=True)
    recipe = json.loads(json.dumps(recipe))
    if path.exists():
        before = json.loads(path.read_text())
        for name in sorted(set(before) | set(recipe)):
            if before.get(name) != recipe.get(name):
                raise ValueError(
                    f"{plan.folder} was begun with another {name} ({before.get(name)}, now {recipe.get(name)}); "
                    "give config.name another value, or remove that folder"
                )
        return
    save_json(path, recipe)


def model_fingerprint(model_folder: str | Path, text: bool) -> str:
    """Changes with any file of the networks that encode."""
    return fingerprint({}, Path(model_folder), ["vae", "tokenizer", "text_encoder"] if text else ["vae"])


def finish(plan: Plan, arrays: Mapping[str, tuple[int, ...]], max_skipped_fraction: float) -> bool:
    """Writes what describes the whole data set if all its shards are there.

    Raises:
      TooManySkipped: of all entries.
    """
    notes = []
    for shard in range(plan.num_shards):
        note = plan.finished(shard)
        if note is None:
            return False
        notes.append(note)
    skipped = [entry for note in notes for entry in note["skipped"]]
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in skipped)
    write_atomically(plan.folder / "skipped.jsonl", lambda path: path.write_text(lines, encoding="utf-8"))
    if len(skipped) > max_skipped_fraction * plan.num_entries:
        raise TooManySkipped(len(skipped), plan.num_entries, max_skipped_fraction, skipped)
    tally = Tally.merged(notes)
    page = statistics_page(plan.name, plan.num_entries, tally, skipped)
    write_atomically(plan.folder / "statistics.md", lambda path: path.write_text(page, encoding="utf-8"))
    for stale in plan.folder.glob(f".{plan.name}-{plan.split}.array_record-*.tmp"):
        stale.unlink(missing_ok=True)  # of a process that was killed
    write_metadata(plan.folder, plan.name, plan.split, arrays, [note["records"] for note in notes])
    return True


def prepare_from(config: Any, process: int = 0, num_processes: int = 1, num_cores: int = 1) -> bool:
    """`prepare` with all that a config (configs/webvid/prepare.py) asks for; the config is checked first."""
    if not config.model_folder:
        raise ValueError("config.model_folder must name a folder or hub id with the networks that encode")
    resolutions = {f"latents_{side}": int(side) for side in config.resolutions}
    if not resolutions:
        raise ValueError("config.resolutions is empty; it lists the sides of the latents")
    model_folder = resolve(config.model_folder)
    corpus = build_corpus(config.corpus.to_dict())
    encoder, params = load_encoder(ModelFolder(model_folder), resolutions, config.text, config.dtype)
    rules = build_network(ClipRules, {**config.clips.to_dict(), "resolution": encoder.pixels}, "config.clips")
    plan = Plan(config.data_dir, config.name, config.split, len(corpus), config.entries_per_shard)
    if not plan.num_entries:
        raise ValueError("config.corpus has no entries")
    recipe = {
        "corpus": config.corpus.to_dict(),
        "entries": len(corpus),
        "entries_per_shard": config.entries_per_shard,
        "clips": dataclasses.asdict(rules),
        "resolutions": list(config.resolutions),
        "reference_frame": config.reference_frame,
        "text": config.text,
        "dtype": config.dtype,
        "batch_size": config.batch_size,
        "networks": model_fingerprint(model_folder, config.text),
    }
    return prepare(
        plan,
        corpus,
        rules,
        encoder,
        params,
        recipe=recipe,
        batch_size=config.batch_size,
        reference_frame=config.reference_frame,
        num_workers=config.num_workers or num_cores,
        time_limit=config.time_limit,
        max_skipped_fraction=config.max_skipped_fraction,
        process=process,
        num_processes=num_processes,
    )
