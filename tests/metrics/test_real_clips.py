"""Folders of real videos: which files are taken, what the networks see of them, what is said of bad ones."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.webvid.real_videos import get_real_videos
from tests.data.synthetic_videos import write_video
from videogen_jax.data.entries import Item
from videogen_jax.data.excerpts import Excerpt, read_excerpt
from videogen_jax.data.workers import Workers
from videogen_jax.metrics import published as measures
from videogen_jax.metrics import real_clips
from videogen_jax.metrics.captions import Captions
from videogen_jax.metrics.published import NETWORKS, PublishedMeasures

NAMES = ("Archery/v_Archery_g01_c01", "Archery/v_Archery_g01_c02", "YoYo/v_YoYo_g01_c01", "YoYo/v_YoYo_g02_c01")
BROKEN = "YoYo/v_YoYo_g02_c02"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four videos in two classes, and a fifth file that is none."""
    folder = tmp_path_factory.mktemp("UCF-101")
    for number, name in enumerate(NAMES):
        path = folder / f"{name}.avi"
        path.parent.mkdir(exist_ok=True)
        write_video(path, np.arange(20) / 25, codec="mpeg4", size=(48, 64), seed=number, clock=False)
    (folder / f"{BROKEN}.avi").write_text("This is a letter, not a video.\n" * 100)
    (folder / "readme.txt").write_text("not a video, and not taken for one")
    return folder


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Of one network, in whose place a table of colours stands: the mean of every frame."""

    def build(path):
        return lambda videos, captions: [{"features": video.mean(axis=(1, 2)).ravel()} for video in videos]

    monkeypatch.setitem(measures.EXTRACTORS, "shapes_classifier", build)
    (tmp_path / "network").write_bytes(b"1")
    return {**dict.fromkeys(NETWORKS, ""), "c3d_mean": "", "shapes_classifier": str(tmp_path / "network")}


def _build(folder, described=None, **fields):
    real = get_real_videos()
    real.update({"folder": str(folder), "clips": 3, "num_workers": 1, "max_skipped_fraction": 0.5, **fields})
    captions = Captions("file", "a.txt", (), described=described)
    return real_clips.build_real_clips(ConfigDict({"seed": 0, "real": real}), captions)


def _see(source, published):
    return source.extract_features(published, num_frames=4, fps=12.5, resolution=32)


def test_networks_see_what_is_in_the_files(folder, weights, tmp_path, monkeypatch):
    source = _build(folder, clips=4, only_listed="")
    published = PublishedMeasures(weights, tmp_path / "a", "tensorflow")
    keys = _see(source, published)
    assert len(set(keys)) == 4
    said = source.summary()
    assert (said["clips"], said["frames"], said["fps"], said["size"]) == (4, 4, 12.5, 32)
    assert [bad["id"] for bad in said["skipped"]] in ([], [BROKEN])

    expected = []
    for name in NAMES:
        item = Item(name, None, str(folder / f"{name}.avi"), ".avi")
        frames = read_excerpt(item, Excerpt(4, 12.5, 32, "random"), real_clips._number(0, name))
        assert frames.shape == (4, 32, 32, 3)
        expected.append(frames.mean(axis=(1, 2)).ravel())
    network = f"shapes_classifier-{published.identities['shapes_classifier']}"
    found = [np.load(tmp_path / "a" / network / f"{key}.npz")["features"] for key in keys]
    for one in expected:
        assert sum(np.allclose(one, other) for other in found) == 1
    to_itself = published.summary(keys, keys)["shapes_frechet_distance"]
    assert to_itself["counts"] == [4, 4]
    assert to_itself["value"] == pytest.approx(0.0, abs=1e-6)

    read_again = []

    def submit(self, item, *rest, original=Workers.submit):
        read_again.append(item.id)
        return original(self, item, *rest)

    monkeypatch.setattr(Workers, "submit", submit)
    assert _see(_build(folder, clips=4), published) == keys
    assert set(read_again) <= {BROKEN}
    slower = _build(folder, clips=4, fps=5.0)
    assert not set(_see(slower, published)) & set(keys)
    assert set(read_again) >= set(NAMES)


def test_the_seed_draws_the_files(folder, weights, tmp_path):
    listed = tmp_path / "testlist01.txt"
    listed.write_text("".join(f"{name}.avi 1\n" for name in NAMES))
    orders = []
    for seed in range(4):
        source = _build(folder, clips=2, only_listed=str(listed))
        orders.append(tuple(source._corpus.id(k) for k in source._order))
        real = get_real_videos()
        real.update({"folder": str(folder), "clips": 2, "only_listed": str(listed)})
        other = real_clips.build_real_clips(ConfigDict({"seed": seed, "real": real}), Captions("file", "a", ()))
        orders.append(tuple(other._corpus.id(k) for k in other._order))
    assert len(set(orders[::2])) == 1
    assert len(set(orders[1::2])) > 1
    assert {frozenset(order) for order in orders} == {frozenset(NAMES)}


def test_only_the_videos_that_the_captions_describe(folder):
    described = frozenset({"v_YoYo_g01_c01", "v_Archery_g01_c02", "video7"})
    source = _build(folder, described, only_described=True, clips=0)
    assert {source._corpus.id(k) for k in source._order} == {NAMES[2], NAMES[1]}
    assert source.count == 2


def test_bad_videos(folder, weights, tmp_path):
    published = PublishedMeasures(weights, tmp_path, "tensorflow")
    source = _build(folder, clips=0)  # all five
    with pytest.raises(ValueError, match=r"only 4 videos can be used where 5 are needed .*g02_c02: not a readable vi"):
        _see(source, published)
    assert [bad["id"] for bad in source.summary()["skipped"]] == [BROKEN]
    with pytest.raises(ValueError, match=r"1 of \d entries cannot be used, more than .* 0 allows.*g02_c02"):
        _see(_build(folder, clips=0, max_skipped_fraction=0.0), published)
    with pytest.raises(ValueError, match="too short"):
        _see(_build(folder, fps=2.0, num_frames=16, max_skipped_fraction=0.0), published)


def test_no_network_takes_a_distance(folder, tmp_path):
    published = PublishedMeasures(dict.fromkeys(NETWORKS, ""), tmp_path, "tensorflow")
    assert _see(_build(folder, clips=0), published) == []  # and nothing is read


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"folder": "nowhere"}, "config.real.folder is nowhere, but there is no such folder"),
        ({"clips": 6}, "has 5 videos where 6 are needed: lower config.real.clips"),
        ({"clips": 1}, "config.real.clips is 1"),
        ({"window": "last"}, "config.real.window is 'last'"),
        ({"size": "big"}, "config.real.size is 'big'"),
        ({"fps": -1.0}, "config.real.fps is -1.0"),
        ({"time_limit": 0.0}, "config.real.time_limit is 0.0"),
        ({"max_skipped_fraction": 2.0}, "max_skipped_fraction is 2.0"),
        ({"only_described": True}, "config.real.only_described is set, but these captions describe no videos"),
        ({"only_listed": "nowhere.txt"}, "config.real.only_listed is nowhere.txt, which cannot be read"),
    ],
)
def test_wrong_fields(folder, fields, message):
    with pytest.raises(ValueError, match=message):
        _build(**{"folder": folder, **fields})


def test_wrong_folders_and_lists(folder, tmp_path):
    with pytest.raises(ValueError, match="holds no entries"):
        _build(tmp_path)
    (tmp_path / "list.txt").write_text("YoYo/v_YoYo_g01_c01.avi 101\nYoYo/v_YoYo_g09_c01.avi 101\n")
    with pytest.raises(ValueError, match=r"1 of its videos are not in .*, the first .*g09_c01\.avi \(line 2\)"):
        _build(folder, only_listed=str(tmp_path / "list.txt"))
    with pytest.raises(ValueError, match="has 0 videos that the captions describe where 3 are needed"):
        _build(folder, frozenset({"video1"}), only_described=True)
