"""Preparing a corpus: clips are cut, encoded by the frozen networks and written in shards.

Each shard covers a fixed range of the corpus and depends on that range alone, not on the process that writes it or on
when, so processes need no communication. A shard is finished when its summary has been written; the process that finds
the summaries of all shards writes the metadata of the data set.
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
from videogen_jax.data.encoding import Encoder, load_encoder, to_storage_dtype
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

SUMMARIES = "shards"  # the folder of the shards' summaries


@dataclasses.dataclass(frozen=True)
class Plan:
    """The assignment of corpus entries to shards, and the paths of these.

    Attributes:
      data_dir: folder of TFDS data sets; this one is in `<data_dir>/<name>/1.0.0`.
      name: name of the data set.
      split: name of the split, such as "train".
      num_entries: number of entries of the corpus.
      entries_per_shard: number of entries that a shard covers.
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
            raise ValueError(f"config.name is {self.name!r}; TFDS requires lower-case letters, digits and underscores")

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

    def summary_path(self, shard: int) -> Path:
        return self.folder / SUMMARIES / f"{self.split}-{shard:05d}-of-{self.num_shards:05d}.json"

    def summary(self, shard: int) -> dict[str, Any] | None:
        """Read the summary of a shard; None if the shard is not finished."""
        with contextlib.suppress(FileNotFoundError):
            return json.loads(self.summary_path(shard).read_text())
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
    """Write this process's share of the shards, except those that are finished.

    Args:
      plan: of the shards.
      corpus: the videos and captions.
      rules: of the clips.
      encoder, params: see `encoding.load_encoder`; its arrays of latents are named `latents_R`.
      recipe: all settings that the data set depends on. It is stored in the folder and compared with the one there.
      batch_size: clips encoded together; a multiple of the number of local devices.
      reference_frame: "first" or "random", the frame of a clip whose latents are its reference.
      num_workers: number of decoding processes.
      time_limit: seconds that decoding one entry may take.
      max_skipped_fraction: the run stops when a larger share of the entries cannot be used.
      process, num_processes: this process writes the shards k with k % num_processes == process.
      read: function that reads the clips of an entry.

    Returns: whether all shards are finished, including those of other processes.

    Raises:
      ValueError: the folder has a data set with another recipe, or a setting is wrong.
      TooManySkipped: see max_skipped_fraction.
    """
    if reference_frame not in ("first", "random"):
        raise ValueError(f"config.reference_frame is {reference_frame!r}; it may be first or random")
    devices = jax.local_devices()
    if batch_size % len(devices):
        raise ValueError(f"config.batch_size is {batch_size}; it must be a multiple of the {len(devices)} devices")
    arrays = array_shapes(encoder, rules.num_frames)
    check_recipe(plan, {**recipe, "arrays": {name: list(shape) for name, shape in arrays.items()}})
    own_shards = range(process, plan.num_shards, num_processes)
    skipped = SkippedEntries(max_skipped_fraction, sum(len(plan.entries(shard)) for shard in own_shards))
    unfinished = []
    for shard in own_shards:
        summary = plan.summary(shard)
        if summary is None:
            unfinished.append(shard)
        else:
            skipped.add_finished(len(plan.entries(shard)), summary["skipped"])
    encoder_queue = BatchEncoder(encoder, params, batch_size, reference_frame, rules, devices)
    if unfinished:
        logging.info("this process writes %d of %d shards in %s", len(unfinished), plan.num_shards, plan.folder)
        workers = Workers(read, num_workers, time_limit)
        _write_shards(plan, corpus, rules, encoder_queue, arrays, unfinished, skipped, workers)
    return finish(plan, arrays, max_skipped_fraction)


def _write_shards(
    plan: Plan,
    corpus: Corpus,
    rules: ClipRules,
    encoder: "BatchEncoder",
    arrays: Mapping[str, tuple[int, ...]],
    shards: list[int],
    skipped: SkippedEntries,
    workers: Workers,
) -> None:
    items: dict[int, Item] = {}

    def tasks() -> Iterator[tuple[Item, ClipRules] | BadVideo]:
        for shard in shards:
            for index in plan.entries(shard):
                try:
                    item = corpus.item(index)
                except BadItem as error:
                    yield BadVideo(str(error))
                    continue
                if encoder.needs_captions and item.caption is None:
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
    total = sum(len(plan.entries(shard)) for shard in shards)
    with workers, Progress(*columns) as bar:
        progress_task, num_clips = bar.add_task("entries", total=total, status=""), 0
        outcomes = workers.map(tasks())
        for shard in shards:
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
                            _write_records(writer, tally, encoder.add(item, clip))
                        num_clips += len(outcome.clips)
                    skipped.add(bad)
                    bar.update(progress_task, advance=1, status=f"{num_clips} clips, {skipped.bad} skipped")
                _write_records(writer, tally, encoder.flush())
            save_json(plan.summary_path(shard), {"skipped": skips, **tally.to_json()})


def _write_records(writer: ShardWriter, tally: Tally, records: list[dict[str, Any]]) -> None:
    for record in records:
        writer.write(record)
        tally.add_record(record)


class BatchEncoder:
    """A queue that turns clips into records batch by batch; the next batch is encoded while one is written.

    Args:
      encoder, params: see `encoding.load_encoder`.
      batch_size: clips encoded together; a multiple of the number of devices.
      reference_frame: "first" or "random", the frame of a clip whose latents are its reference.
      rules: of the clips, whose seed draws the random reference frames.
      devices: over which each batch is split.
    """

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
            arrays = encoder.encode(params, batch)
            frame = reference[:, None, None, None, None]
            for name in encoder.resolutions:
                arrays[name.replace("latents", "reference")] = jax.numpy.take_along_axis(arrays[name], frame, axis=1)
            return jax.tree.map(to_storage_dtype, arrays)

        self._encode = encode
        self._pending: list[tuple[Item, Clip]] = []
        self._running: tuple[list[tuple[Item, Clip]], dict[str, jax.Array]] | None = None

    @property
    def needs_captions(self) -> bool:
        return self._encoder.text is not None

    def add(self, item: Item, clip: Clip) -> list[dict[str, Any]]:
        """Add a clip, and return the records that have become ready."""
        self._pending.append((item, clip))
        return self._start() if len(self._pending) == self._batch_size else []

    def flush(self) -> list[dict[str, Any]]:
        """Encode all remaining clips, and return their records."""
        records = self._start() if self._pending else []
        return records + self._collect()

    def _start(self) -> list[dict[str, Any]]:
        entries, self._pending = self._pending, []
        padded = entries + [entries[-1]] * (self._batch_size - len(entries))
        batch = {"video": np.stack([clip.frames for _, clip in padded])}
        if self.needs_captions:
            batch["tokens"] = self._encoder.tokens([item.caption for item, _ in padded])
        reference = np.array([self._reference_index(item, clip) for item, clip in padded], np.int32)
        arrays = self._encode(self._params, *jax.device_put((batch, reference), self._sharding))
        records = self._collect()
        self._running = (entries, arrays)
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
                **{name: array[index] for name, array in arrays.items()},
            }
            for index, (item, clip) in enumerate(entries)
        ]

    def _reference_index(self, item: Item, clip: Clip) -> int:
        if not self._random_reference:
            return 0
        return int(self._rules.rng(f"{item.id} {clip.start:.6f}").integers(len(clip.frames)))


def array_shapes(encoder: Encoder, num_frames: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a record."""
    shapes = encoder.shapes(num_frames)
    references = {
        name.replace("latents", "reference"): (1, *shape[1:])
        for name, shape in shapes.items()
        if name in encoder.resolutions
    }
    return {**shapes, **references}


def check_recipe(plan: Plan, recipe: Mapping[str, Any]) -> None:
    """Store the recipe in the data set's folder, or compare it with the one that is stored there.

    Raises:
      ValueError: the recipes differ; the message names the first field that does.
    """
    path = plan.folder / RECIPE_NAME
    plan.folder.mkdir(parents=True, exist_ok=True)
    (plan.folder / SUMMARIES).mkdir(exist_ok=True)
    recipe = json.loads(json.dumps(recipe))
    if path.exists():
        stored = json.loads(path.read_text())
        for name in sorted(set(stored) | set(recipe)):
            if stored.get(name) != recipe.get(name):
                raise ValueError(
                    f"{plan.folder} was started with another value of {name} ({stored.get(name)}, now "
                    f"{recipe.get(name)}); give config.name another value, or remove that folder"
                )
        return
    save_json(path, recipe)


def model_fingerprint(model_folder: str | Path, text: bool) -> str:
    """Return a string that changes with any file of the encoding networks."""
    return fingerprint({}, Path(model_folder), ["vae", "tokenizer", "text_encoder"] if text else ["vae"])


def finish(plan: Plan, arrays: Mapping[str, tuple[int, ...]], max_skipped_fraction: float) -> bool:
    """Write the metadata of the data set if all its shards are finished.

    Returns: whether they are.

    Raises:
      TooManySkipped: more of all entries cannot be used than `max_skipped_fraction` allows.
    """
    summaries = []
    for shard in range(plan.num_shards):
        summary = plan.summary(shard)
        if summary is None:
            return False
        summaries.append(summary)
    skipped = [entry for summary in summaries for entry in summary["skipped"]]
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in skipped)
    write_atomically(plan.folder / "skipped.jsonl", lambda path: path.write_text(lines, encoding="utf-8"))
    if len(skipped) > max_skipped_fraction * plan.num_entries:
        raise TooManySkipped(len(skipped), plan.num_entries, max_skipped_fraction, skipped)
    tally = Tally.merged(summaries)
    page = statistics_page(plan.name, plan.num_entries, tally, skipped)
    write_atomically(plan.folder / "statistics.md", lambda path: path.write_text(page, encoding="utf-8"))
    for stale in plan.folder.glob(f".{plan.name}-{plan.split}.array_record-*.tmp"):
        stale.unlink(missing_ok=True)  # left by a process that was killed
    write_metadata(plan.folder, plan.name, plan.split, arrays, [summary["records"] for summary in summaries])
    return True


def prepare_from(config: Any, process: int = 0, num_processes: int = 1, num_cores: int = 1) -> bool:
    """Run `prepare` with the settings of a config (configs/webvid/prepare.py), which is checked first.

    Args:
      config: the config.
      process, num_processes: see `prepare`.
      num_cores: number of decoding processes if the config does not set it.

    Returns: see `prepare`.

    Raises:
      ValueError: a field of the config is wrong; the message names it. Otherwise as `prepare`.
    """
    if not config.model_folder:
        raise ValueError("config.model_folder must name a folder or hub id with the encoding networks")
    resolutions = {f"latents_{side}": int(side) for side in config.resolutions}
    if not resolutions:
        raise ValueError("config.resolutions is empty; it must list the sides of the latents")
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
