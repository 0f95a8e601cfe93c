"""The ablations: that each changes one thing, that the launcher runs them all, and what is said of their results."""

import json
import os
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from configs.shapes.evaluate import get_config as get_evaluation
from videogen_jax.shapes.reader import ATTRIBUTES
from videogen_jax.training.build import build_stage

ROOT = Path(__file__).parents[1]
LAUNCHER = ROOT / "launch" / "ablations.sh"
TRAINED = {  # what is to be other than in the whole setting
    "whole": {},
    "no_reference": {"model.reference_frames": "none"},
    "reference_first": {"model.reference_frames": "first"},
    "random_reference": {"data.reference_frame": "random"},
    "no_text": {"model.text": False},
    "no_augmentation": {"model.max_noise_level": 0, "model.noise_level": 0},
    "one_stage": {
        "steps": 1553,
        "model.unet.block_out_channels": (48, 96),
        "model.unet.cross_attention": (True, True),
        "model.lower_resolution": None,
    },
}


def config_of(name, arg):
    return import_module(f"configs.shapes.ablations.{name}").get_config(arg)


def flat(config, prefix=""):
    items = {}
    for name, value in config.items():
        items |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return items


def launch(*arguments, **variables):
    env = {**os.environ, **variables}
    return subprocess.run([LAUNCHER, *arguments], env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def commands():
    """All that the launcher would run for seed 1, as words."""
    done = launch("--dry-run", "--seeds", "1", "--root", "/nowhere")
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


@pytest.fixture
def benchmarks(monkeypatch):
    """The folder of the benchmarks, which is no package, to import from."""
    folder = str(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(folder)
    yield
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(folder):
            del sys.modules[name]


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_ablation_changes_one_thing(name):
    for side in (8,) if name in ("no_augmentation", "one_stage") else (4, 8):
        config, whole = (config_of(of, f"resolution={side},seed=2").to_dict() for of in (name, "whole"))
        one, other = flat(config), flat(whole)
        assert {key: one[key] for key in one if one[key] != other[key]} == TRAINED[name]
        assert set(one) == set(other)
        assert config["seed"] == 2
        assert build_stage("cascade", config["model"]).name == f"cascade_{side}"


def test_other_ways_of_measuring_change_one_thing():
    shipped = flat(config_of("as_shipped", "seed=3").to_dict())
    changed = {key for key, value in flat(get_evaluation().to_dict()).items() if shipped[key] != value}
    assert changed == {"parts", "prompts", "seed", "sampling.temporal_factor"}
    for name, value, field in (
        ("guidance", 2.0, "sampling.cascade_4.guidance_scale"),
        ("reference_guidance", 3.0, "sampling.cascade_4.reference_guidance_scale"),
        ("steps", 5, "sampling.cascade.steps"),
        ("sampler", "ddim", "sampling.cascade.sampler"),
    ):
        config = flat(config_of(name, f"{field.rpartition('.')[2]}={value},seed=3").to_dict())
        assert {key: config[key] for key in config if config[key] != shipped.get(key)} == {field: value}


def test_arguments_of_the_configs():
    for arg, resolution, seed in (("", 4, 0), ("8", 8, 0), ("seed=4", 4, 4), ("8,seed=4", 8, 4)):
        config = config_of("whole", arg)
        assert (config.model.resolution, config.seed) == (resolution, seed)
    config = config_of("guidance", "2.0,seed=4")
    assert (config.sampling.cascade_4.guidance_scale, config.seed) == (2.0, 4)
    for name, arg, message in (
        ("whole", "16", "no argument '16'; its arguments are resolution: 4 or 8; seed: an integer"),
        ("no_augmentation", "resolution=4", "the argument resolution must be 8, not '4'"),
        ("whole", "4,sead=1", "no argument 'sead=1'; its arguments are resolution"),
        ("evaluate", "64", "no argument '64'; its arguments are seed: an integer"),
    ):
        with pytest.raises(ValueError, match=message):
            config_of(name, arg)


def test_one_stage_is_trained_with_the_compute_of_the_cascade(benchmarks):
    from compute import training_flops

    def of(name, arg):
        config = config_of(name, arg).to_dict()
        return config["steps"] * training_flops(config)

    cascade = of("whole", "resolution=4") + of("whole", "resolution=8")
    assert of("one_stage", "resolution=8") == pytest.approx(cascade, rel=0.005)


def test_the_launcher_runs_every_ablation_with_a_config_that_loads(commands, benchmarks):
    from ablation_results import SAMPLED
    from ablation_results import TRAINED as NAMED

    denoised = [words for words in commands if "benchmarks/denoising.py" in words]
    assert sorted(Path(words[-1]).parts[2] for words in denoised) == sorted(NAMED)
    commands = [words for words in commands if words not in denoised]
    configs = [words[words.index("--config") + 1] for words in commands]
    for config in configs:
        path, _, arg = config.partition(":")
        assert config_of(Path(path).stem, arg).seed == 1, config
    evaluated = [Path(words[words.index("--output") + 1]) for words in commands if "videogen_jax.evaluate" in words]
    names = [output.relative_to("/nowhere").parts for output in evaluated]
    assert {parts[0] for parts in names} == {*SAMPLED, *NAMED, "temporal", "decoder"}
    assert {parts[1:] for parts in names} == {("seed_1", "evaluation")}
    assert set(NAMED) == set(TRAINED)
    for name in NAMED:
        trained = [c for c, words in zip(configs, commands, strict=True) if "videogen_jax.train" in words]
        sides = [c.split(":")[1] for c in trained if f"/{name}.py" in c]
        expected = (8,) if name in ("no_augmentation", "one_stage") else (4, 8)
        assert sides == [f"resolution={side},seed=1" for side in expected]


def test_what_is_finished_is_not_run_again_and_what_failed_is(tmp_path):
    """With a `python` that writes down its calls, makes what the command would, and fails where it is to."""
    script = tmp_path / "bin" / "python"
    script.parent.mkdir()
    script.write_text(
        "#!/usr/bin/env bash\n"
        f'if [ "$1" = -m ]; then echo "$2 $4"; else echo "$1"; fi >>{tmp_path}/calls\n'
        f'if [ -e {tmp_path}/fail ] && [[ "$*" == *"$(cat {tmp_path}/fail)"* ]]; then exit 75; fi\n'
        'case $2 in *train) mkdir -p "$6/checkpoints" ;; *export) out=${*: -1}; mkdir -p "$out/cascade_4" ;; esac\n'
    )
    script.chmod(0o755)
    root = tmp_path / "runs"

    def run():
        (tmp_path / "calls").write_text("")
        path = f"{script.parent}:{os.environ['PATH']}"
        arguments = ("--root", str(root), "--seeds", "0", "--only", "no_augmentation", "whole", "temporal")
        done = launch(*arguments, PATH=path)
        calls = (tmp_path / "calls").read_text().replace("configs/shapes/ablations/", "")
        return done.returncode, calls.replace("videogen_jax.", "").splitlines()

    (tmp_path / "fail").write_text("train --config configs/shapes/ablations/whole.py:resolution=8")
    whole_4 = ["train whole.py:resolution=4,seed=0", "export whole.py:resolution=4,seed=0"]
    scored = ["evaluate evaluate.py:seed=0", "benchmarks/denoising.py"]
    upper = ["train no_augmentation.py:resolution=8,seed=0", "export no_augmentation.py:resolution=8,seed=0", *scored]
    assert run() == (75, [*whole_4, *upper, "train whole.py:resolution=8,seed=0"])
    assert (root / "no_augmentation/seed_0/model/cascade_4").is_dir()  # the whole setting's
    assert (root / "no_augmentation/seed_0/model/vae/config.json").is_file()
    assert not (root / "whole/seed_0/cascade_4/checkpoints").exists()
    (tmp_path / "fail").write_text("evaluate.py")
    assert run() == (
        75,
        ["train whole.py:resolution=8,seed=0", "export whole.py:resolution=8,seed=0", "evaluate evaluate.py:seed=0"],
    )
    (tmp_path / "fail").unlink()
    assert run() == (0, [*scored, "evaluate temporal.py:seed=0"])
    assert run() == (0, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "no_colours"], "error: there is no ablation no_colours; try --help"),
        (["--only"], "error: --only needs the name of an ablation"),
        (["--seeds", "one"], "error: --seeds has 'one'"),
        (["--wrong"], "error: unknown option --wrong; try --help"),
    ],
)
def test_what_cannot_work_is_refused(arguments, message):
    done = launch(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def write_run(root, name, seed, metrics):
    folder = root / name / f"seed_{seed}"
    (folder / "evaluation").mkdir(parents=True)
    (folder / "evaluation" / "metrics.json").write_text(json.dumps({"model": "m", **metrics}))
    (folder / "evaluated").touch()
    return folder


def videos(rights, flicker=1.0):
    """A prompts section: of each video (picture, motion); the first has no warping error."""
    motion = ("motion_kind", "direction", "speed")
    results = [
        {
            "key": f"0-{k:04d}",
            "right": {a: bool(at[a in motion]) for a in ATTRIBUTES},
            "consistency": {"warping_error": 1e-3 * k or None, "still_flicker": flicker, "reference_psnr": 30.0},
        }
        for k, at in enumerate(rights)
    ]
    return {"prompts": {"settings": {"sampling": {}}, "results": results}}


@pytest.fixture
def made(tmp_path, benchmarks, monkeypatch):
    """Made-up results: the whole setting beats that without a reference by the picture alone."""
    import compute

    monkeypatch.setattr(compute, "run_flops", lambda workdirs: 5e13)
    monkeypatch.setattr(compute, "sampling_flops", lambda model, sampling: 2.5e10)
    for seed in (0, 1):
        write_run(tmp_path, "whole", seed, videos([(1, 1)] * 18 + [(0, 1)] * 2))
        write_run(tmp_path, "no_reference", seed, videos([(0, 1)] * 9 + [(1, 1)] * 11))
    for name, error in (("whole", 0.1), ("no_reference", 0.2)):
        at = {"latents": [error, 2 * error], "change": [0.3, 0.5]}
        errors = {"cascade_4": {"300": at, "900": at}}
        (tmp_path / name / "seed_1" / "denoising.json").write_text(json.dumps({"errors": errors}))
    write_run(tmp_path, "as_shipped", 0, videos([(1, 1)] * 6, flicker=2.0))
    write_run(tmp_path, "steps_5", 0, videos([(1, 0)] * 4))
    begun = write_run(tmp_path, "one_stage", 0, videos([(1, 1)]))
    (begun / "evaluated").unlink()
    of_decoder = {
        "image_decoder": {"psnr": 31.0, "flicker": 20.0},
        "video_decoder": {"psnr": 33.0, "flicker": 12.0},
        "psnr_difference": {"value": 2.0, "interval": [1.5, 2.5]},
        "flicker_ratio": {"value": 0.6, "interval": [0.5, 0.7]},
    }
    write_run(tmp_path, "decoder", 0, {"decoder": {"settings": {"clips": 8}, "x1": of_decoder}})
    at = {"blended": 47.0, "warped": 46.0, "upsampled": 47.5}
    at |= {
        "difference": {"value": 0.5, "interval": [-0.1, 1.0]},
        "warped_difference": {"value": -1.0, "interval": [-2, 0]},
    }
    write_run(
        tmp_path, "temporal", 0, {"temporal": {"settings": {"clips": 8}, "x2": {"image_decoder": {"decoded": at}}}}
    )
    return tmp_path


def test_scores_are_pooled_and_paired(made):
    from ablation_results import difference, pooled, read_runs

    runs = read_runs(made)
    assert set(runs) == {
        "whole",
        "no_reference",
        "as_shipped",
        "steps_5",
        "decoder",
        "temporal",
    }  # one_stage is not finished
    picture = pooled(runs["whole"], "picture")
    assert (picture["right"], picture["count"], picture["seeds"]) == (36, 40, {0: 0.9, 1: 0.9})
    gap = difference(runs["whole"], runs["no_reference"], "picture")
    assert gap["value"] == pytest.approx((18 - 11) / 20)
    assert gap["seeds"] == {0: pytest.approx(0.35), 1: pytest.approx(0.35)}
    assert gap["count"] == 40
    assert 0 < gap["interval"][0] < 0.35 < gap["interval"][1]
    assert difference(runs["whole"], runs["no_reference"], "motion")["value"] == 0
    assert difference(runs["whole"], {}, "motion") is None
    one_by_one = pooled(runs["whole"], "attributes")  # of the two wrong pictures three of seven attributes are right
    assert one_by_one["fraction"] == pytest.approx((18 + 2 * 3 / 7) / 20)
    assert one_by_one["interval"][0] < one_by_one["fraction"] < one_by_one["interval"][1] <= 1
    assert one_by_one["count"] == 40
    gap = difference(runs["whole"], runs["no_reference"], "attributes")
    assert gap["value"] == pytest.approx(7 / 20 * 4 / 7)
    (made / "whole" / "seed_0" / "evaluation" / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match=r"whole/seed_0/evaluation/metrics\.json is no result"):
        read_runs(made)


def test_what_runs_found_is_kept(made, tmp_path):
    from ablation_results import keep, read_kept, read_runs

    kept = tmp_path / "kept"
    with pytest.raises(ValueError, match="no finished run is kept in"):
        read_kept(kept)
    runs = read_runs(made)
    keep({"whole": {0: runs["whole"][0]}}, kept)
    del runs["whole"][0]
    keep(runs, kept)  # of another machine
    assert read_kept(kept) == read_runs(made)
    (kept / "whole_0.json").write_text('{"name": "whole", "sead": 0}')
    with pytest.raises(ValueError, match=r"whole_0\.json is no run that .* kept: .*sead"):
        read_kept(kept)


def test_the_page_says_what_was_run_and_what_was_not(made, monkeypatch):
    import experiments

    page, kept = made / "experiments.md", str(made / "kept")
    page.write_text(f"before\n{experiments.BEGIN}\nold\n{experiments.END}\nafter\n")
    monkeypatch.setattr(sys, "argv", ["experiments.py", str(made), "--page", str(page), "--kept", kept])
    experiments.main()
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "\nold\n" not in text
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert "| holds | picture right, with minus without: +35 (" in rows["(a) the reference improves fidelity"]
    assert "-50% (-50 to -50%); by seed -50% | 1 | 2 clips" in rows["(a) the same, lowest stage"]
    assert "| not shown" in rows["(b) with it the model learns dynamics better"]
    assert "| not shown" in rows["(b) the same, lowest stage"]
    assert "| no stored run |" in rows["(c) the cascade is more efficient than one stage"]
    assert "| not shown" in rows["(d) flow beats blending in time"]
    assert "-40% (-50 to -30%)" in rows["(e) a decoder trained on video alone beats the image decoder"]
    assert "| holds |" in rows["(e) the same, by PSNR"]
    assert "| no reference image | 50.0 | 25 | 0, 1 (40) | 55% (" in text
    assert "| no reference image | cascade_4 | 1 (2) | +100% (+100 to +100%) | +0% (+0 to +0%) |" in text
    assert "No stored run: reference_first, random_reference, no_text, no_augmentation, one_stage." in text
    assert "--only guidance reference_guidance steps sampler`" in text
    assert "| 5 steps in each stage | 3 | 2.00 | +0% (+0 to +0%) | 1.00 | -50% (-50 to -50%) |" in text
    for file in ("experiments_trained.png", "experiments_sampling.png", "experiments_clips.png"):
        assert (made / file).read_bytes().startswith(b"\x89PNG")
        assert f"({file})" in text
    monkeypatch.setattr(sys, "argv", ["experiments.py", "--page", str(page), "--kept", kept])
    experiments.main()  # of what is kept alone
    assert page.read_text() == text
    (made / "kept" / "as_shipped_0.json").unlink()
    (made / "experiments_sampling.png").unlink()
    experiments.main()
    assert not (made / "experiments_sampling.png").exists()  # one run is nothing to compare
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="lacks the marks"):
        experiments.main()
