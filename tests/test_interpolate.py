import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.data.synthetic_videos import read_time, write_video
from videogen_jax.interpolation.files import default_output
from videogen_jax.video_io import read_video

ROOT = Path(__file__).resolve().parents[1]


def start(*arguments: str | Path, cwd: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "videogen_jax.interpolate", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "VIDEOGEN_JAX_CACHE": "off"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )


@pytest.fixture
def run(run_command, tmp_path):
    """The command in `tmp_path`: its status, output and errors."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        done = run_command("videogen_jax.interpolate", *arguments, cwd=tmp_path, VIDEOGEN_JAX_CACHE="off")
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def clip(tmp_path) -> Path:
    write_video(tmp_path / "a.mp4", np.arange(9) / 12, codec="h264", size=(48, 64))
    return tmp_path / "a.mp4"


def test_the_command_writes_beside_the_input(tiny_model, tmp_path, clip, run):
    status, out, err = run("a.mp4", "--factor=4", f"--model={tiny_model}")
    assert (status, out) == (0, "a-x4.mp4\n"), err
    frames, fps = read_video(tmp_path / "a-x4.mp4")
    assert (frames.shape, fps) == ((36, 48, 64, 3), 48)
    assert read_time(frames[8]) == pytest.approx(2 / 12, abs=0.001)
    assert "warning: the model was trained on frames of 16x16; those of the video are 64x48 (width x height)" in err
    assert "9/9" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-x4.mp4", "a.mp4"]


def test_help_is_quick_and_complete(run):
    code = "import sys; import videogen_jax.interpolate; sys.exit('jax' in sys.modules or 'av' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    _, out, _ = run("--help")
    assert "Raise the frame rate of a video file" in out
    assert "--[no]keep_frames" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no video file: run python -m videogen_jax.interpolate in.mp4 --factor 4"),
        (["a.mp4", "b.mp4"], "unexpected argument 'b.mp4'"),
        (["a.mp4", "--factor=3"], "factor is 3, but must be one of the model's, 2, 4, or a product of them"),
        (["a.mp4", "--factor=two"], "--factor=two: invalid literal"),
        (["a.mp4", "--output=a.mp4"], "a.mp4 is the input itself: choose another --output"),
        (["a.mp4", "--output=b.avi"], "b.avi must end in one of .mp4, .webm, .gif"),
        (["a.mp4", "--window=3"], "window is 3, but must be at least 4"),
        (["a.mp4", "--model=none"], "none"),
        (["none.mp4"], "none.mp4: the file does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(tiny_model, tmp_path, clip, run, arguments, message):
    model = [] if any("--model" in argument for argument in arguments) else [f"--model={tiny_model}"]
    status, out, err = run(*arguments, *model)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == [clip]


def test_a_model_without_an_upsampler_is_refused(tiny_model, tmp_path, clip, run):
    for part in tiny_model.iterdir():
        if part.name != "temporal_upsampler":
            (tmp_path / "model").mkdir(exist_ok=True)
            (tmp_path / "model" / part.name).symlink_to(part)
    status, _, err = run("a.mp4", "--model=model")
    assert (status, err) == (
        2,
        "error: model has no temporal_upsampler, which is needed to raise the frame rate\n",
    )


def test_a_stop_leaves_nothing(tiny_model, tmp_path):
    write_video(tmp_path / "a.mp4", np.arange(600) / 120, codec="h264", size=(48, 64))
    process = start("a.mp4", "--factor=4", f"--model={tiny_model}", "--output=out/b.mp4", cwd=tmp_path)
    while process.poll() is None and not list(tmp_path.glob("out/.b.*")):  # until it writes
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.endswith("error: stopped\n")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("source", "slow_motion", "expected"),
    [("a/b.mov", False, "a/b-x4.mp4"), ("b.WEBM", False, "b-x4.webm"), ("b.gif", True, "b-slow-x4.gif")],
)
def test_the_output_is_named_after_the_input(source, slow_motion, expected):
    assert default_output(source, 4, slow_motion) == Path(expected)
