import tarfile

import numpy as np
import pytest
from PIL import Image

from tests.data.synthetic_videos import draw, read_time, write_video
from videogen_jax.data.clips import ClipRules, read_clips
from videogen_jax.data.corpora import build_corpus
from videogen_jax.data.decoding import BadVideo
from videogen_jax.data.entries import Item

RULES = ClipRules(num_frames=8, fps=(8.0,), resolution=64)


def video(path, seconds=4.0, **options):
    write_video(path, np.arange(0.0, seconds, 1 / 24), codec="h264", size=(96, 128), **options)
    return Item(path.stem, None, str(path), path.suffix)


def test_a_video_is_cut_into_consecutive_clips(tmp_path):
    scan = read_clips(video(tmp_path / "a.mp4"), RULES)
    assert [clip.start for clip in scan.clips] == [0.0, 1.0, 2.0, 3.0]
    for clip in scan.clips:
        assert clip.frames.shape == (8, 64, 64, 3)
        times = [read_time(frame) for frame in clip.frames]
        np.testing.assert_allclose(times, clip.start + np.arange(8) / 8, atol=1 / 48 + 0.001)
        assert (clip.fps, clip.motion > 2) == (8.0, True)
    assert scan.seconds == pytest.approx(4.0, abs=0.01)


def test_clips_do_not_span_scene_changes(tmp_path):
    scan = read_clips(video(tmp_path / "a.mp4", scene_changes=(1.5, 2.0), clock=False), RULES)
    assert scan.counts == {"cuts": 2, "still": 0, "short": 1}  # the scene of half a second
    assert [clip.start for clip in scan.clips] == [0.0, 2.0, 3.0]


def test_still_clips_are_dropped(tmp_path):
    still = video(tmp_path / "a.mp4", moving=False, clock=False)
    scan = read_clips(still, RULES)
    assert (scan.clips, scan.counts["still"]) == ([], 4)
    with_still = read_clips(still, ClipRules(num_frames=8, fps=(8.0,), resolution=64, min_motion=0.0))
    assert len(with_still.clips) == 4
    assert max(clip.motion for clip in with_still.clips) < 0.2


def test_limits_on_clips_and_seconds_per_video(tmp_path):
    item = video(tmp_path / "a.mp4")
    assert len(read_clips(item, ClipRules(8, (8.0,), 32, max_clips=2)).clips) == 2
    assert len(read_clips(item, ClipRules(8, (8.0,), 32, max_seconds=1.95)).clips) == 2
    rates = {
        name: {clip.fps for clip in read_clips(Item(name, None, item.path, ".mp4"), ClipRules(4, (4, 8), 32)).clips}
        for name in map(str, range(12))
    }
    assert all(len(fps) == 1 for fps in rates.values())  # one rate for a video
    assert set.union(*rates.values()) == {4.0, 8.0}


def test_short_and_broken_videos_are_refused(tmp_path):
    with pytest.raises(BadVideo, match=r"too short: its last frame is at 0.71 s, but a clip spans 0.88 s"):
        read_clips(video(tmp_path / "a.mp4", seconds=0.75), RULES)
    with pytest.raises(BadVideo, match="frame rate too low"):
        read_clips(video(tmp_path / "b.mp4"), ClipRules(8, (60.0,), 32))
    item = video(tmp_path / "c.mp4", faststart=True)
    content = (tmp_path / "c.mp4").read_bytes()
    (tmp_path / "c.mp4").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(BadVideo, match=r"damaged at|truncated"):
        read_clips(item, RULES)


def test_every_kind_of_entry_gives_clips(tmp_path):
    """A member of a tar shard has the clips of the file; an image has one square frame. TFDS has its own test."""
    item = video(tmp_path / "a.mp4")
    Image.fromarray(draw(0.0, (96, 160))).save(tmp_path / "b.png")
    for name in ("a.mp4", "b.png"):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as shard:
            shard.add(tmp_path / name, name)
    tar = {"kind": "webdataset", "captions": ()}
    (moving,) = read_all({**tar, "shards": str(tmp_path / "a.*.tar"), "media": "videos"})
    for clip, truth in zip(moving.clips, read_clips(item, RULES).clips, strict=True):
        np.testing.assert_array_equal(clip.frames, truth.frames)
    stills = [
        *read_all({**tar, "shards": str(tmp_path / "b.*.tar"), "media": "images"}),
        *read_all({"kind": "folder", "folder": str(tmp_path), "captions": "", "media": "images"}),
    ]
    for still in stills:
        (clip,) = still.clips
        assert (clip.frames.shape, clip.fps, read_time(clip.frames[0])) == ((1, 64, 64, 3), 0.0, 0.0)


def read_all(settings):
    corpus = build_corpus(settings)
    return [read_clips(corpus.item(index), RULES) for index in range(len(corpus))]


def test_impossible_rules_are_refused():
    with pytest.raises(ValueError, match=r"config.clips.num_frames is 0; it must be at least 1"):
        ClipRules(0, (8.0,), 32)
    with pytest.raises(ValueError, match=r"config.clips.fps is \(\); it must be one or more rates above 0"):
        ClipRules(8, (), 32)
