"""A corpus of good and broken videos through `videogen_jax.prepare`, and from there into training."""

import hashlib
import json
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import psutil
import pytest
import tensorflow_datasets as tfds

from configs.webvid.prepare import get_config
from tests.data.synthetic_videos import make_corpus, read_time
from videogen_jax.data.clips import ClipRules, read_clips
from videogen_jax.data.corpora import build_corpus
from videogen_jax.data.encoding import load_encoder
from videogen_jax.data.prepared import PreparedClips
from videogen_jax.data.preparing import SUMMARIES, prepare_from
from videogen_jax.data.skipped import TooManySkipped
from videogen_jax.weights.model_folder import ModelFolder

REASONS = {
    "index lost": "not a readable video",
    "truncated": "damaged at",
    "zero bytes": "the file is empty",
    "audio only": "it has no video stream, only audio",
    "not a video": "not a readable video",
    "too short": "too short",
    "empty caption": "its caption is empty",
    "blank caption": "its caption is empty",
    "wrong encoding": "its caption is not UTF-8",
    "duplicate id": "an earlier entry has the same id",
    "missing file": "is missing",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    videos = make_corpus(folder, count=60, faulty=20)  # good ones of every form and size
    with (folder / "table.csv").open("wb") as file:
        file.write(b"videoid,page_dir,name\n")
        for video in videos:
            file.write(video.path.name.encode() + b',,"' + video.caption.replace(b'"', b'""') + b'"\n')
    return folder, videos


def make_config(corpus, model, output, entries=None):
    """Return the project's own config at the size of the tiny model, for the first `entries` of the corpus."""
    folder = corpus[0]
    table = folder / "table.csv"
    if entries is not None:
        table = folder / f"first_{entries}.csv"
        if not table.exists():
            table.write_bytes(b"".join((folder / "table.csv").read_bytes().splitlines(keepends=True)[: entries + 1]))
    config = get_config()
    config.corpus.update({"file": str(table), "folder": str(folder / "videos"), "suffix": ""})
    config.model_folder = str(model)
    config.data_dir = str(output)
    config.resolutions = (4, 8)
    config.clips.num_frames = 4
    config.entries_per_shard = 7 if entries is None else 2
    config.batch_size = 8
    config.max_skipped_fraction = 0.5
    return config


@pytest.fixture(scope="module")
def prepared(corpus, tiny_model, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared")
    assert prepare_from(make_config(corpus, tiny_model, output), num_cores=2)
    return output / "webvid" / "1.0.0"


@pytest.fixture(scope="module")
def alone(corpus, tiny_model, tmp_path_factory):
    """What one process makes of the first entries."""
    output = tmp_path_factory.mktemp("alone")
    assert prepare_from(make_config(corpus, tiny_model, output, entries=16))
    found = contents(output)
    assert len([name for name in found if SUMMARIES in name]) == 8
    return found


def contents(folder):
    """Return the digest of each file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_good_video_is_in_and_every_bad_one_is_named(corpus, prepared):
    _, videos = corpus
    info = json.loads((prepared / "dataset_info.json").read_text())
    (split,) = info["splits"]
    assert len(split["shardLengths"]) == 9
    records = tfds.builder_from_directory(str(prepared)).as_data_source(split="train")
    assert len(records) == sum(map(int, split["shardLengths"]))
    good = {video.path.name: video.caption.decode() for video in videos if video.fault is None}
    assert {record["id"].decode(): record["caption"].decode() for record in records} == good
    skipped = [json.loads(line) for line in (prepared / "skipped.jsonl").read_text().splitlines()]
    bad = [(index, video) for index, video in enumerate(videos) if video.fault is not None]
    assert [(entry["index"], entry["id"]) for entry in skipped] == [(index, video.path.name) for index, video in bad]
    for entry, (_, video) in zip(skipped, bad, strict=True):
        assert REASONS[video.fault] in entry["reason"], (entry, video.fault)
    page = (prepared / "statistics.md").read_text()
    assert "| entries of the corpus | 60 |" in page
    assert f"| **clips** | **{len(records)}** |" in page


def test_frames_of_all_clips_agree_with_the_truth(corpus):
    """Frames passed to the encoder are those nearest to their times."""
    rules = ClipRules(num_frames=4, fps=(8.0,), resolution=64)
    folder, videos = corpus
    entries = build_corpus(
        {"kind": "csv", "file": str(folder / "table.csv"), "folder": f"{folder}/videos", "suffix": ""}
    )
    for index, video in enumerate(videos):
        if video.fault is not None:
            continue
        clips = read_clips(entries.item(index), rules).clips
        assert clips
        for clip in clips:
            times = clip.start + np.arange(4) / 8
            smallest = np.array([min(abs(t - time) for t in video.times) for time in times])
            decoded = np.array([read_time(frame) for frame in clip.frames])
            np.testing.assert_allclose(np.abs(decoded - times), smallest, atol=0.0012)


def test_latents_and_text_states_are_those_of_the_networks(corpus, prepared, tiny_model):
    folder, videos = corpus
    source = PreparedClips(str(prepared), resolution=8, lower_resolution=4)
    encoder, params = load_encoder(ModelFolder(tiny_model), {"latents": 8, "lower": 4}, text=True)
    entries = build_corpus(
        {"kind": "csv", "file": str(folder / "table.csv"), "folder": f"{folder}/videos", "suffix": ""}
    )
    index = next(index for index, video in enumerate(videos) if video.fault is None)
    clip = read_clips(entries.item(index), ClipRules(4, (8.0,), encoder.pixels)).clips[0]
    batch = {"video": clip.frames[None], "tokens": encoder.tokens([videos[index].caption.decode()])}
    encoded = jax.jit(encoder.encode)(params, batch)
    example = source[0]
    assert set(example) == {"latents", "lower", "reference", "context", "fps"}
    for name in ("latents", "lower", "context"):
        assert example[name].dtype == np.float16
        np.testing.assert_allclose(example[name], encoded[name][0], atol=2e-3, rtol=2e-3)
    np.testing.assert_array_equal(example["reference"], example["latents"][:1])
    assert example["fps"] == 8.0
    assert source.caption(0) == videos[index].caption.decode()


def test_a_finished_data_set_is_left_alone(corpus, prepared, tiny_model, compilations):
    before, times = contents(prepared), {path: path.stat().st_mtime_ns for path in prepared.glob("*array_record*")}
    assert prepare_from(make_config(corpus, tiny_model, prepared.parents[1]), num_cores=2)
    assert contents(prepared) == before
    assert {path: path.stat().st_mtime_ns for path in prepared.glob("*array_record*")} == times
    config = make_config(corpus, tiny_model, prepared.parents[1])
    config.clips.num_frames = 3
    with pytest.raises(ValueError, match=r"was started with another value of arrays .* give config.name another val"):
        prepare_from(config)


def test_three_processes_write_what_one_writes(corpus, tiny_model, alone, tmp_path):
    config = make_config(corpus, tiny_model, tmp_path, entries=16)
    assert [prepare_from(config, process, 3) for process in (2, 0, 1)] == [False, False, True]
    assert contents(tmp_path) == alone


def test_repeated_kills_do_not_change_the_result(corpus, tiny_model, alone, tmp_path, command_server, run_command):
    config = make_config(corpus, tiny_model, tmp_path / "killed", entries=16)
    fields = {
        "corpus.file": config.corpus.file,
        "corpus.folder": config.corpus.folder,
        "corpus.suffix": "",
        "model_folder": config.model_folder,
        "data_dir": config.data_dir,
        "resolutions": "(4, 8)",
        "clips.num_frames": 4,
        "entries_per_shard": config.entries_per_shard,
        "batch_size": 8,
        "max_skipped_fraction": 0.5,
        "num_workers": 1,
    }
    root = Path(__file__).parents[2]
    arguments = ["--config", str(root / "configs/webvid/prepare.py")]
    arguments += [f"--config.{name}={value}" for name, value in fields.items()]

    def prepare():
        cache = str(tmp_path / "compiled")
        return run_command("videogen_jax.prepare", *arguments, cwd=root, VIDEOGEN_JAX_CACHE=cache)

    rng, folder = random.Random(0), tmp_path / "killed" / "webvid" / "1.0.0"
    shards = 0
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            running = pool.submit(prepare)
            deadline, before = time.monotonic() + 60, shards
            while shards == before and not running.done() and time.monotonic() < deadline:
                time.sleep(0.01)  # it imports, compiles, and finishes the next of 8 shards
                shards = len(list((folder / SUMMARIES).glob("*.json")))
            time.sleep(rng.uniform(0.0, 0.1))  # in the middle of the one after it
            (process,) = psutil.Process(command_server.pid).children()
            process.kill()
            assert running.result().returncode == -signal.SIGKILL
            assert shards > before
    assert not (folder / "dataset_info.json").exists()
    done = prepare()
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "killed") == alone


def test_too_many_bad_entries_stop_it(corpus, tiny_model, tmp_path):
    config = make_config(corpus, tiny_model, tmp_path)
    config.max_skipped_fraction = 0.02
    with pytest.raises(TooManySkipped, match=r"2 of \d+ entries cannot be used, more than max_skipped_fraction 0.02"):
        prepare_from(config)


def test_impossible_settings_are_refused_at_once(corpus, tiny_model, tmp_path):
    config = make_config(corpus, tiny_model, tmp_path)
    config.name = "Web Vid"
    with pytest.raises(ValueError, match=r"config.name is 'Web Vid'; TFDS requires lower-case letters"):
        prepare_from(config)
    config = make_config(corpus, "", tmp_path)
    with pytest.raises(ValueError, match=r"config.model_folder must name a folder or hub id"):
        prepare_from(config)
    config = make_config(corpus, tiny_model, tmp_path)
    config.reference_frame = "last"
    with pytest.raises(ValueError, match=r"config.reference_frame is 'last'; it may be first or random"):
        prepare_from(config)
    config = make_config(corpus, tiny_model, tmp_path)
    config.corpus.caption_column = ""
    with pytest.raises(ValueError, match=r"config.corpus has no captions: set config.text to False, or name them"):
        prepare_from(config)


def test_a_random_frame_may_be_the_reference(corpus, tiny_model, tmp_path):
    config = make_config(corpus, tiny_model, tmp_path, entries=5)
    config.reference_frame = "random"
    prepare_from(config)
    source = PreparedClips(str(tmp_path / "webvid" / "1.0.0"), resolution=8, text=False)
    indices = [
        next(k for k in range(4) if np.array_equal(example["reference"][0], example["latents"][k]))
        for example in (source[index] for index in range(len(source)))
    ]
    assert len(set(indices)) > 1


def test_an_unfinished_data_set_is_not_trained_on(prepared, tmp_path):
    with pytest.raises(ValueError, match=r"has no finished data set from videogen_jax.prepare"):
        PreparedClips(str(tmp_path), 8)
    (tmp_path / "prepare.json").write_text("{}")
    with pytest.raises(ValueError, match=r"run videogen_jax.prepare again to finish it"):
        PreparedClips(str(tmp_path), 8)
    with pytest.raises(ValueError, match=r"has no latents_16; it has context, latents_4, latents_8, reference_4"):
        PreparedClips(str(prepared), 16)
