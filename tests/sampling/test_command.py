import functools
from pathlib import Path

import numpy as np
import pytest

from videogen_jax.runtime import compilation_cache
from videogen_jax.runtime.command_line import read_prompts
from videogen_jax.sampling import command
from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.video_io import contact_sheet, read_image, read_video, write_image

CIRCLE, SQUARE = "a small red circle moving right slowly on a gray background", "a large blue square growing"


@pytest.fixture
def run(run_command, tmp_path):
    """The command, run in tmp_path."""
    return functools.partial(run_command, "videogen_jax.sample", cwd=tmp_path)


def test_the_command_writes_a_video_and_a_sheet_and_keeps_its_programs(run, tiny_model, tmp_path):
    cache = tmp_path / "cache"
    result = run(
        f"--prompt={CIRCLE} zebra",
        f"--model={tiny_model}",
        "--steps=1",
        "--config.temporal_factor=1",
        VIDEOGEN_JAX_CACHE=str(cache),
    )
    assert result.returncode == 0, result.stderr
    stem = "out/a-small-red-circle-moving-right-slowly-on-a-gray-background-0"
    assert result.stdout.split() == [f"{stem}.mp4", f"{stem}.png"]
    frames, fps = read_video(tmp_path / f"{stem}.mp4")
    assert (frames.shape, fps) == ((4, 16, 16, 3), 7.5)
    assert "warning: the model does not know 'zebra'; the words it knows are a, background" in result.stderr
    for stage in ("reference", "cascade_4", "cascade_8", "decode"):
        assert stage in result.stderr
    assert len(list(cache.glob("executables/*.executable"))) >= 7  # a program for each stage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.cascade.stepz=2", f"--prompt={CIRCLE}"], "there is no field config.cascade.stepz"),
        (["--config=none.py", f"--prompt={CIRCLE}"], "--config none.py does not exist"),
        (["--config.cascade.steps=two", f"--prompt={CIRCLE}"], "--config.cascade.steps=two: invalid literal"),
        (["--prompt="], "--prompt is empty"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(run, arguments, message):
    result = run(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not result.stdout


def test_prompts_of_a_file_are_made_in_batches(sample_config, tiny_pipeline, tmp_path, capsys):
    prompts = [CIRCLE, SQUARE, CIRCLE]
    sample_config.seed = 5
    targets = command.sample(sample_config, prompts, save_reference=True)
    names = [f"{n:03d}-{command.slug(prompt)}-5" for n, prompt in enumerate(prompts, 1)]
    assert [target.video for target in targets] == [Path("out") / f"{name}.mp4" for name in names]
    printed = capsys.readouterr().out.split()
    assert printed == [f"out/{name}{end}" for name in names for end in (".mp4", ".png", "-reference.png")]
    # The third prompt was alone in its batch and is the first one again.
    np.testing.assert_array_equal(read_image(targets[2].reference), read_image(targets[0].reference))
    np.testing.assert_array_equal(read_image(targets[2].sheet), read_image(targets[0].sheet))
    assert not np.array_equal(read_image(targets[1].reference), read_image(targets[0].reference))
    expected = tiny_pipeline(prompts[:2], seed=5)
    np.testing.assert_array_equal(read_image(targets[0].sheet), contact_sheet(expected.frames[0]))
    np.testing.assert_array_equal(read_image(targets[0].reference), expected.reference[0])


def test_a_given_reference_and_settings_reach_the_pipeline(sample_config, tmp_path):
    write_image("red.png", np.full((40, 60, 3), (200, 20, 20), np.uint8))
    sample_config.frames, sample_config.fps = 6, 4.0
    (target,) = command.sample(sample_config, [CIRCLE], "made/video.gif", "red.png", save_reference=True)
    assert target.paths == [Path("made/video.gif"), Path("made/video.png"), Path("made/video-reference.png")]
    frames, fps = read_video(target.video)
    assert (len(frames), fps) == (6, 4.0)
    np.testing.assert_array_equal(read_image(target.reference), np.broadcast_to((200, 20, 20), (16, 16, 3)))


def test_what_is_made_stays_when_a_later_batch_fails(sample_config, tiny_pipeline, monkeypatch):
    real, calls = VideoGenPipeline.sample, []

    def fail_second(self, request, *args, **keywords):
        calls.append(request)
        if len(calls) == 2:
            raise ValueError("out of luck")
        return real(self, request, *args, **keywords)

    monkeypatch.setattr(VideoGenPipeline, "sample", fail_second)
    with pytest.raises(ValueError, match="out of luck"):
        command.sample(sample_config, [CIRCLE, SQUARE, CIRCLE], "made/")
    assert sorted(path.name[:3] for path in Path("made").iterdir()) == ["001", "001", "002", "002"]


@pytest.mark.parametrize(
    ("fields", "arguments", "message"),
    [
        ({"model": "nowhere"}, {}, "the folder nowhere does not exist"),
        ({"model": "."}, {}, "is not a model folder"),
        ({"frames": 14}, {}, "num_frames is 14, but the model makes 2 to 13 frames"),
        ({"fps": -1.0}, {}, "fps is -1.0"),
        ({"fps": 100.0}, {"output": "a.gif"}, "a .gif shows at most 50 frames a second"),
        ({"seed": -1}, {}, "seed is -1"),
        ({"batch_size": 0}, {}, "config.batch_size is 0"),
        ({"dtype": "float8"}, {}, "config.dtype is 'float8'"),
        ({"sheet_columns": 0}, {}, "config.sheet_columns is 0"),
        ({"cascade": {"steps": 0}}, {}, "steps is 0"),
        ({"cascade": {"guidance_scale": float("nan")}}, {}, "guidance_scale is nan"),
        ({"reference": {"sampler": "magic"}}, {}, "sampler is 'magic'"),
        ({}, {"output": "video.avi"}, "video.avi must end in one of .mp4"),
        ({}, {"output": "file/video.mp4"}, "file/video.mp4 cannot be written"),
        ({}, {"output": "file"}, "is a file without an ending"),
        ({}, {"reference": "file"}, "file is not an image that can be read"),
        ({}, {"reference": "nothing.png"}, "nothing.png does not exist"),
        ({}, {"prompts": [CIRCLE, SQUARE], "output": "one.mp4"}, "one.mp4 is one file, but there are 2 prompts"),
    ],
)
def test_bad_input_is_refused_before_compiling(sample_config, compilations, fields, arguments, message):
    Path("file").write_text("no image")
    for name, value in fields.items():
        if isinstance(value, dict):
            sample_config[name].update(value)
        else:
            sample_config[name] = value
    with pytest.raises(ValueError, match=message):
        command.sample(sample_config, **{"prompts": [CIRCLE], **arguments})
    assert not compilations
    assert not Path("out").exists() or not any(Path("out").iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("", "has no prompts"),
        ("a circle\n\na square\n", "line 2 is empty"),
        (b"\xff\xfe\xfa", "cannot be read as UTF-8"),
    ],
)
def test_prompts_file_is_checked(tmp_path, content, message):
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_prompts(None, str(path))


def test_prompts_are_read(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text(" a circle \na square\n\n", encoding="utf-8")
    assert read_prompts(None, str(path)) == ["a circle", "a square"]
    assert read_prompts("a star ", None) == ["a star"]
    with pytest.raises(ValueError, match="either --prompt or --prompts_file"):
        read_prompts(None, None)


def test_the_cache_can_be_moved_and_turned_off(tmp_path, monkeypatch, caplog):
    updates = {}
    monkeypatch.setattr("jax.config.update", updates.__setitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv(compilation_cache.VARIABLE, raising=False)
    monkeypatch.setenv(compilation_cache.JAX_VARIABLE, str(tmp_path / "jax"))
    assert compilation_cache.enable() == tmp_path / "jax"
    monkeypatch.delenv(compilation_cache.JAX_VARIABLE)
    assert compilation_cache.enable() == tmp_path / "xdg" / "videogen_jax" / "xla"
    assert updates["jax_compilation_cache_dir"] == str(tmp_path / "xdg" / "videogen_jax" / "xla")
    monkeypatch.setenv(compilation_cache.VARIABLE, str(tmp_path / "mine"))
    assert compilation_cache.enable() == tmp_path / "mine"
    updates.clear()
    for off in ("", "off"):
        monkeypatch.setenv(compilation_cache.VARIABLE, off)
        assert compilation_cache.enable() is None
    (tmp_path / "file").write_text("")
    assert compilation_cache.enable(tmp_path / "file" / "cache") is None
    assert "compiled programs are not cached" in caplog.text
    assert not updates


@pytest.mark.parametrize("flag", ["--help", "--helpfull"])
def test_help_is_no_failure(run, flag):
    done = run(flag)
    assert done.returncode == 0
    assert "--[no]save_reference" in done.stdout
    assert not done.stderr
