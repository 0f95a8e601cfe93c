"""Worker processes. The functions that they call must be importable there, so a module on their path is written."""

import pickle
import sys

import numpy as np
import pytest

from tests.data.synthetic_videos import read_time, write_video
from videogen_jax.data.clips import ClipRules
from videogen_jax.data.decoding import BadVideo
from videogen_jax.data.entries import BadItem, Item
from videogen_jax.data.skipped import SkippedEntries, TooManySkipped
from videogen_jax.data.videos import VideoClips, Window, read_window
from videogen_jax.data.workers import Workers

MODULE = """
import os, time
from videogen_jax.data.decoding import BadVideo
from videogen_jax.data.videos import read_window

def work(task):
    if task == "crash":
        os.abort()
    if task == "hang":
        while True:
            time.sleep(1)
    if task == "bad":
        raise BadVideo("it is bad")
    if task == "bug":
        raise KeyError("unknown")
    return task * 2

def read(item, window, seed):
    if item.id in ("crash", "hang"):
        work(item.id)
    return read_window(item, window, seed)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "worker_functions.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import worker_functions

    yield worker_functions
    del sys.modules["worker_functions"]


def test_a_broken_file_does_not_affect_others(module):
    tasks = [(1,), ("crash",), ("hang",), ("bad",), BadVideo("known before"), ("bug",), (2,)]
    with Workers(module.work, 2, time_limit=1.5) as workers:
        outcomes = list(workers.map(iter(tasks)))
    assert [outcomes[0], outcomes[-1]] == [2, 4]
    assert [str(outcome) for outcome in outcomes[1:-1]] == [
        "the decoder crashed (exit code -6)",
        "decoding took longer than 1.5 s",
        "it is bad",
        "known before",
        "KeyError: 'unknown'",
    ]
    with pytest.raises(ValueError, match="the number of decoding processes is 0; it must be at least 1"):
        Workers(module.work, 0, 1.0)


class ListCorpus:
    """A corpus of items, and of errors in place of items."""

    def __init__(self, entries):
        self.entries = entries

    def __len__(self):
        return len(self.entries)

    def id(self, index):
        return self.entries[index].id

    def item(self, index):
        if isinstance(self.entries[index], BadItem):
            raise self.entries[index]
        return self.entries[index]


@pytest.fixture
def entries(tmp_path):
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", np.arange(0, 1.5, 1 / 24), codec="h264", size=(48, 64))
    good = [Item(name, f"it is {name}", str(tmp_path / f"{name}.mp4"), ".mp4") for name in "ab"]
    hanging, crashing = (Item(name, None, str(tmp_path / "a.mp4"), ".mp4") for name in ("hang", "crash"))
    return [good[0], hanging, good[1], BadItem("empty", "its caption is empty"), crashing]


def test_training_continues_past_bad_entries(module, entries, tmp_path):
    def make():
        window = Window(4, (8.0,), 32, crop=True, flip=True)
        file = tmp_path / "run" / "skipped.jsonl"
        limits = {"time_limit": 2.0, "max_skipped_fraction": 0.6}
        return VideoClips(ListCorpus(entries), window, **limits, skipped_file=file, read=module.read)

    source = make()
    drawn = [source[index] for index in range(5)]
    assert [(example["video"].shape, example["fps"]) for example in drawn] == [((4, 32, 32, 3), 8.0)] * 5
    lines = (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()
    source[1], source[3]
    again = make()  # known bad entries are not tried again
    np.testing.assert_array_equal(again[3]["video"], drawn[3]["video"])
    assert (tmp_path / "run" / "skipped.jsonl").read_text().splitlines() == lines
    reasons = ["decoding took longer than 2 s", "its caption is empty", "the decoder crashed (exit code -6)"]
    assert [reason in line for reason, line in zip(reasons, lines, strict=True)] == [True] * 3
    captions = ["it is a", "it is b", "it is b", "it is a", "it is a"]  # including those of the replacements
    assert [again.caption(index) for index in range(5)] == captions


def test_a_drawn_rate_is_one_that_the_file_supports(tmp_path):
    write_video(tmp_path / "v.mp4", np.arange(0, 1.5, 1 / 24), codec="h264", size=(64, 64))
    item = Item("v", None, str(tmp_path / "v.mp4"), ".mp4")
    rates = []
    for seed in range(12):
        frames, fps = read_window(item, Window(6, (2.0, 8.0, 12.0, 60.0), 64), seed)  # too long, two good, too fast
        rates.append(fps)
        np.testing.assert_allclose(np.diff([read_time(frame) for frame in frames]), 1 / fps, atol=1 / 24 + 1e-3)
    assert set(rates) == {8.0, 12.0}
    with pytest.raises(BadVideo, match="too short"):
        read_window(item, Window(6, (2.0, 3.0), 64), 0)


def test_too_many_bad_entries_end_the_run(module, entries):
    source = VideoClips(
        ListCorpus(entries), Window(4, (8.0,), 32), max_skipped_fraction=0.2, time_limit=1.0, read=module.read
    )
    source[1]
    with pytest.raises(TooManySkipped, match=r"2 of 3 entries cannot be used, more than max_skipped_fraction 0.2"):
        source[3]


def test_counting_of_skipped_entries():
    def bad(number, reason="damaged at 1.00 s (broken)"):
        return {"id": f"v{number}", "reason": reason}

    account = SkippedEntries(0.1, 10_000)
    for number in range(198):
        account.add(bad(number) if number < 60 else None)
    account.add(None)
    with pytest.raises(TooManySkipped) as stopped:
        account.add(bad(60, "the file is empty"))
    assert str(stopped.value) == (
        "61 of 200 entries cannot be used, more than max_skipped_fraction 0.1 allows: 60 x damaged; "
        "1 x the file is empty (first: v0: damaged at 1.00 s (broken))"
    )
    with pytest.raises(ValueError, match=r"config.max_skipped_fraction is 1.5; it must be between 0 and 1"):
        SkippedEntries(1.5, 10)


def test_rules_can_be_pickled():
    rules = ClipRules(8, (8.0,), 32)
    assert pickle.loads(pickle.dumps(rules)) == rules
