"""The command line of the studio, and the example of a client."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from videogen_jax.sampling.recipe import Recipe
from videogen_jax.studio.clients import TOKEN_VARIABLE, check_token
from videogen_jax.studio.model import FolderSource
from videogen_jax.video_io import read_video, write_image

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-more-than-16-signs"


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host=0.0.0.0"], "--host 0.0.0.0 can be reached from other machines: set a token"),
        (["--token=short"], "--token must have at least 16 characters"),
        (["--port=70000"], "--port=70000"),
        (["--port=http"], "--port=http"),
        (["--queue=0"], "--queue=0"),
        (["--prot=80"], "Unknown command line flag 'prot'"),
        (["here"], "unexpected argument 'here'"),
        (["--model=nowhere"], "the folder nowhere does not exist"),
        (["--model=."], "is not a model folder"),
        (["--gallery=file/gallery"], "--gallery file/gallery cannot be written"),
        (["--host=no.such.name.invalid", f"--token={TOKEN}"], "--host no.such.name.invalid is no"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(tmp_path, run_command, monkeypatch, arguments, message):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    (tmp_path / "file").write_text("")
    result = run_command("videogen_jax.serve", *arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not result.stdout


def test_a_port_in_use_is_reported(tmp_path, run_command, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_command("videogen_jax.serve", f"--port={port}", cwd=tmp_path)
    assert result.returncode == 2
    assert (
        result.stderr
        == f"error: --port {port} of --host 127.0.0.1 cannot be listened at (Address already in use): choose another\n"
    )


def test_help_is_fast_and_lists_every_flag(tmp_path):
    """It imports none of the libraries that take seconds to load."""
    script = (
        "import sys; from absl import app, flags; import videogen_jax.serve as serve; "
        "print([name for name in ('jax', 'fastapi', 'uvicorn', 'PIL', 'numpy') if name in sys.modules])"
    )
    assert run("-c", script, cwd=tmp_path).stdout == "[]\n"
    output = run("-m", "videogen_jax.serve", "--help", cwd=tmp_path).stdout
    for name in ("model", "reference_model", "host", "port", "gallery", "gallery_limit", "queue", "token"):
        assert f"--{name}:" in output


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_needs_no_token(host):
    check_token(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "127.0.0.1.example", "studio.example"])
def test_any_other_address_needs_a_token(host):
    with pytest.raises(ValueError, match=TOKEN_VARIABLE):
        check_token(host, None)
    check_token(host, TOKEN)


@pytest.mark.parametrize(
    "token", ["", "short", "with a space in between it", "t\u00f6ken-t\u00f6ken-t\u00f6ken", "line\nline\nline\nline"]
)
def test_short_tokens_and_tokens_that_cannot_be_sent_are_rejected(token):
    with pytest.raises(ValueError, match="at least 16 characters"):
        check_token("127.0.0.1", token)


def test_the_page_is_served_while_the_model_loads(tiny_model, tmp_path):
    command = [sys.executable, "-m", "videogen_jax.serve", f"--model={tiny_model}", "--port=0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "VIDEOGEN_JAX_CACHE": "off", TOKEN_VARIABLE: TOKEN}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().split()[4]
            with urllib.request.urlopen(f"{url}healthz", timeout=30) as response:
                assert json.load(response)["status"] in ("loading", "warming up")
            request = urllib.request.Request(f"{url}api/v1/model", headers={"Authorization": f"Bearer {TOKEN}"})
            with urllib.request.urlopen(request, timeout=30) as response:
                assert json.load(response)["max_frames"] == 13
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(url, timeout=30)
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
        finally:
            server.kill()
    assert (tmp_path / "out/gallery").is_dir()


def test_the_example_makes_videos_with_the_tiny_model(tiny_model, tiny_pipeline, serve, tmp_path, monkeypatch):
    """The real pipeline, from the request of the example client to its file."""
    source = FolderSource(tiny_model)
    monkeypatch.setattr(source, "load", lambda: tiny_pipeline)
    _, url = serve(source=source, token=TOKEN)
    example, token = str(ROOT / "examples/studio_client.py"), {TOKEN_VARIABLE: TOKEN}
    completed = run(example, "a small red circle", "--seed=3", f"--url={url}", cwd=tmp_path, **token)
    assert (completed.returncode, completed.stdout) == (0, "video.mp4: 7 frames, seed 3\n"), completed.stderr
    frames, fps = read_video(tmp_path / "video.mp4")
    assert (frames.shape, fps) == ((7, 16, 16, 3), 15.0)
    recipe = Recipe.read(tmp_path / "video.mp4")
    again = tiny_pipeline([recipe.prompt], seed=recipe.seed)
    assert again.recipes == (recipe,)
    write_image(tmp_path / "red.png", np.full((20, 30, 3), (200, 20, 20), np.uint8))
    more = ("--reference=red.png", "--output=red.mp4", f"--url={url}")
    completed = run(example, "a large blue square", *more, cwd=tmp_path, **token)
    assert completed.returncode == 0, completed.stderr
    assert Recipe.read(tmp_path / "red.mp4").reference is not None
    completed = run(example, " ", f"--url={url}", cwd=tmp_path, **token)
    assert (completed.returncode, completed.stderr) == (1, "error: prompt is empty: say what the video should show.\n")
    completed = run(example, "a circle", f"--url={url}", cwd=tmp_path)
    assert completed.returncode == 1
    assert "token is missing" in completed.stderr
