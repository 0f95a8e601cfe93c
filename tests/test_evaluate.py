"""Evaluation of a tiny untrained model, stopped and started again; the numbers that are known without a model."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from configs.shapes.evaluate import get_config
from tests.shapes.tiny_classifier import write_tiny_classifier
from videogen_jax.metrics import evaluation, fidelity, statistics
from videogen_jax.metrics.image import psnr
from videogen_jax.metrics.published import MEASURES
from videogen_jax.metrics.results import ResultLog
from videogen_jax.metrics.table import table_rows
from videogen_jax.runtime.sheets import captioned_sheet, strip
from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.sampling.request import SamplingRequest
from videogen_jax.shapes import world
from videogen_jax.shapes.captions import sample_captions
from videogen_jax.shapes.reader import ATTRIBUTES
from videogen_jax.video_io import read_image as load_image
from videogen_jax.video_io import read_video


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline):
    return tiny_pipeline


@pytest.fixture(autouse=True, scope="module")
def _loaded_once(pipeline):
    """Every evaluation here is of one model: its programs are compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoGenPipeline, "from_pretrained", lambda *_, **__: pipeline)
        yield


def _config(**fields):
    config = get_config()
    config.update({"prompts": 3, "batch_size": 2, "clips": 2, "frame_batch": 3, "factors": (2,), "rates": (1,)})
    config.weights.shapes_classifier = ""
    config.update(fields)
    return config


@pytest.fixture(scope="module")
def evaluated(model, _loaded_once, tmp_path_factory):
    """All parts, in one go: the output folder and what `evaluate` returned."""
    folder = tmp_path_factory.mktemp("evaluated")
    return folder, evaluation.evaluate(_config(), model, folder)


def test_sections_and_counts(evaluated, pipeline):
    folder, metrics = evaluated
    assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert metrics["prompts"]["video"]["colour"]["count"] == 3
    assert metrics["prompts"]["reference"]["all"]["count"] == 3
    assert [r["prompt"] for r in metrics["prompts"]["results"]] == sample_captions(3)
    for record in metrics["prompts"]["results"]:
        assert record["right"] == {
            name: record["read"][name] == said
            for name in ATTRIBUTES
            if (said := getattr(world.parse_caption(record["prompt"]), name)) is not None
        }
    assert set(metrics["autoencoder"]["psnr"]) == {str(pipeline.resolution // 2), str(pipeline.resolution)}
    assert metrics["autoencoder"]["read"]["rendered"]["colour"]["fraction"] == 1.0
    decoder = metrics["decoder"]["x1"]
    ratio = decoder["video_decoder"]["flicker"] / decoder["image_decoder"]["flicker"]
    assert decoder["flicker_ratio"]["value"] == pytest.approx(ratio)
    of_image = metrics["temporal"]["x2"]["image_decoder"]["decoded"]
    assert of_image["difference"]["value"] == pytest.approx(of_image["upsampled"] - of_image["blended"])
    assert of_image["difference"]["interval"][0] <= of_image["difference"]["value"]
    assert of_image["warped_difference"]["value"] == pytest.approx(of_image["warped"] - of_image["blended"])
    assert of_image["warped"] not in (of_image["upsampled"], of_image["blended"])


def test_sheets_and_table(evaluated, pipeline, capsys):
    folder, metrics = evaluated
    rows, width = 3, pipeline.resolution * 8 + 12 + 6 * 2  # a reference and seven frames
    sheet = load_image(folder / "contact_sheet.png")
    assert sheet.shape[0] > rows * pipeline.resolution
    assert sheet.shape[1] >= width
    assert (folder / "failures.png").exists()  # nothing that an untrained model draws is right
    evaluation.print_table(metrics)
    printed = capsys.readouterr().out
    assert "reference: shape" in printed
    assert "flicker" in printed


def test_what_lacks_weights_is_not_in_the_report_which_says_what_to_pass(evaluated, capsys):
    _, metrics = evaluated
    section = metrics["prompts"]
    assert section["published"] == {}
    assert set(section["not_measured"]) == set(MEASURES)
    evaluation.print_table(metrics)
    printed = capsys.readouterr().out
    for measure in MEASURES.values():
        assert f"not measured: {measure.title}: pass --config.weights.{measure.network}=PATH" in printed
    assert "Fréchet" not in printed.split("not measured")[0]


def test_a_network_that_comes_later_sees_the_same_videos(evaluated, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # no line is to be broken
    _, metrics = evaluated
    config = _config(parts=("prompts",), real_clips=3)
    evaluation.evaluate(config, model, tmp_path)
    config.weights.shapes_classifier = write_tiny_classifier(tmp_path / "classifier")
    added = evaluation.evaluate(config, model, tmp_path)
    distance = added["prompts"]["published"]["shapes_frechet_distance"]
    assert distance["counts"] == [3, 3]
    assert distance["value"] > 0
    assert "shapes_frechet_distance" not in added["prompts"]["not_measured"]
    assert added["prompts"]["results"] == metrics["prompts"]["results"]
    evaluation.print_table(added)
    assert "shapes Fréchet distance (not FVD)" in capsys.readouterr().out
    before = (tmp_path / "metrics.json").read_bytes()
    evaluation.evaluate(config, model, tmp_path)
    assert (tmp_path / "metrics.json").read_bytes() == before


def test_stopped_twice_and_started_again(model, tmp_path, stop_sampling):
    config = _config(parts=("prompts",), prompts=5)  # of which two are made at once
    once, again = tmp_path / "once", tmp_path / "again"
    stop_sampling["after"] = 3
    evaluation.evaluate(config, model, once)
    log = again / "prompts.jsonl"
    for made in (2, 4):
        stop_sampling["after"] = 1
        with pytest.raises(KeyboardInterrupt):
            evaluation.evaluate(config, model, again)
        assert len(log.read_text().splitlines()) == 1 + made  # the settings, and a batch each time
        assert len(list((again / "videos").glob("*.mp4"))) == made
        assert not (again / "report.html").exists()
    with open(log, "a") as file:
        file.write('{"key": "0-0004", "prom')  # as a crash in the middle of writing leaves it
    stop_sampling["after"] = 1
    evaluation.evaluate(config, model, again)
    files = sorted(path.relative_to(once) for path in once.rglob("*") if path.is_file())
    assert sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file()) == files
    for name in files:
        assert (again / name).read_bytes() == (once / name).read_bytes(), name
    assert {"metrics.json", "report.html", "prompts.jsonl"} <= {str(name) for name in files}
    evaluation.evaluate(config, model, again)  # nothing is left to do: no video may be made
    for name in files:
        assert (again / name).read_bytes() == (once / name).read_bytes(), name


def test_videos_are_kept_and_in_the_report(evaluated, pipeline):
    folder, metrics = evaluated
    page = (folder / "report.html").read_text()
    for record in metrics["prompts"]["results"]:
        frames, fps = read_video(folder / "videos" / f"{record['key']}.mp4")
        request = SamplingRequest.from_keywords("a video").resolve(pipeline.index)
        assert frames.shape == (request.num_frames, pipeline.resolution, pipeline.resolution, 3)
        assert fps == request.fps
        assert load_image(folder / "videos" / f"{record['key']}.png").shape == frames.shape[1:]
        assert f'id="case-{record["key"]}"' in page
    for row in table_rows(metrics):
        assert row.name in page


@pytest.mark.slow
def test_killed_twice_gives_the_same_files(model, tmp_path):
    """In processes of their own, killed by the system: once at the prompts, once at another part."""
    command = [
        *(sys.executable, "-m", "videogen_jax.evaluate", "--config=configs/shapes/evaluate.py", f"--model={model}"),
        *("--config.prompts=12", "--config.batch_size=2", "--config.clips=6", "--config.rates=(1,)"),
        "--config.parts=('prompts', 'decoder')",
    ]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "VIDEOGEN_JAX_CACHE": str(tmp_path / "cache")}
    once, killed = tmp_path / "once", tmp_path / "killed"
    subprocess.run([*command, f"--output={once}"], env=environment, check=True, capture_output=True)

    for log, records, all_records in (("prompts.jsonl", 3, 12), ("decoder.jsonl", 1, 6)):

        def count(path=killed / log):
            return path.read_bytes().count(b"\n") - 1 if path.exists() else 0

        with open(tmp_path / "output", "w") as output:
            process = subprocess.Popen(
                [*command, f"--output={killed}"], env=environment, stdout=output, stderr=subprocess.STDOUT
            )
            try:
                while count() < records and process.poll() is None:
                    time.sleep(0.002)
            finally:
                process.kill()
                process.wait()
        assert process.returncode == -signal.SIGKILL, (tmp_path / "output").read_text()
        assert records <= count() < all_records
        assert not (killed / "report.html").exists()
    subprocess.run([*command, f"--output={killed}"], env=environment, check=True, capture_output=True)
    files = ["metrics.json", "report.html", "contact_sheet.png", "failures.png"]
    files += sorted(str(path.relative_to(once)) for path in (once / "videos").iterdir())
    assert len(files) == 4 + 2 * 12
    for name in files:
        assert (killed / name).read_bytes() == (once / name).read_bytes(), name


def test_clips_measured_before_warping_was_are_measured_again(evaluated, model, tmp_path):
    folder, metrics = evaluated
    (tmp_path / "metrics.json").write_bytes((folder / "metrics.json").read_bytes())
    header, *records = (folder / "temporal.jsonl").read_text().splitlines()
    old = [json.loads(record) for record in records]
    for of_decoder in (old[0]["image_decoder"], old[0]["video_decoder"]):
        del of_decoder["rendered"]["warped"], of_decoder["decoded"]["warped"]
    (tmp_path / "temporal.jsonl").write_text("\n".join([header, *map(json.dumps, old)]) + "\n")
    again = evaluation.evaluate(_config(parts=("temporal",)), model, tmp_path)
    assert again["temporal"] == metrics["temporal"]


def test_one_stage_of_the_cascade_may_be_sampled_otherwise(pipeline):
    sampling = get_config().sampling
    sampling.cascade.steps = 4
    sampling.cascade_8 = {"steps": 2, "noise_level": 0}
    stages = SamplingRequest.from_config(sampling, ["a video"]).resolve(pipeline.index).stages
    default = pipeline.index.stage_settings
    assert stages == {
        "reference": default["reference"],
        "cascade_4": dataclasses.replace(default["cascade_4"], steps=4),
        "cascade_8": dataclasses.replace(default["cascade_8"], steps=2, noise_level=0),
    }


def test_results_of_other_settings_are_refused(evaluated, model):
    folder, _ = evaluated
    config = _config(parts=("prompts",))
    config.sampling.cascade.steps = 1
    with pytest.raises(ValueError, match=r"prompts\.jsonl holds results of another sampling"):
        evaluation.evaluate(config, model, folder)


def test_sections_of_other_parts_stay(evaluated, model):
    folder, metrics = evaluated
    again = evaluation.evaluate(_config(parts=("decoder",)), model, folder)
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(metrics))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parts": ("prompts", "fvd")}, "config.parts has 'fvd'"),
        ({"parts": ()}, "config.parts is empty"),
        ({"prompts": 0}, "config.prompts is 0"),
        ({"factors": (3,)}, "config.factors has 3, but may have 2, 4"),
        ({"rates": (0,)}, "config.rates has 0"),
        ({"dtype": "int8"}, "config.dtype is 'int8'"),
        ({"seed": -1}, "config.seed is -1"),
        ({"real_clips": 0}, "config.real_clips is 0"),
        ({"report_videos": -1}, "config.report_videos is -1"),
        ({"report_beside": "nowhere"}, "config.report_beside: nowhere is no metrics.json of an evaluation"),
        ({"fvd_protocol": "mine"}, "config.fvd_protocol is 'mine'"),
        ({"weights": {"i3d": "nowhere"}}, "the model makes .* frames, but i3d takes 16"),
        ({"weights": {"clip": "nowhere"}}, "config.weights.clip is nowhere, which does not exist"),
    ],
)
def test_wrong_config(model, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        evaluation.evaluate(_config(**fields), model, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=nowhere"], "nowhere"),
        ([], "--model"),
        (["--model=nowhere", "--config.nothing=1"], "there is no field config.nothing"),
        (["--model=nowhere", "--config.prompts=many"], "prompts"),
        (["--model=nowhere", "--split=test"], "split"),
    ],
)
def test_wrong_command(arguments, message, tmp_path, run_command):
    config = "--config=configs/shapes/evaluate.py"
    done = run_command("videogen_jax.evaluate", config, f"--output={tmp_path}", *arguments)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in done.stderr


def test_wilson_interval():
    low, high = statistics.wilson_interval(8, 10)  # Newcombe 1998's method 3, worked out by hand
    assert (low, high) == (pytest.approx(0.490162, abs=1e-6), pytest.approx(0.943318, abs=1e-6))
    assert statistics.wilson_interval(0, 5)[0] == 0.0
    assert statistics.wilson_interval(5, 5)[1] == 1.0
    with pytest.raises(ValueError, match="4 of 3"):
        statistics.wilson_interval(4, 3)


def test_paired_intervals():
    rng = np.random.default_rng(1)
    base = rng.normal(30, 5, 400)
    a, b = base + rng.normal(2, 0.2, 400), base
    difference = statistics.mean_difference(a, b)
    low, high = difference["interval"]
    assert low < 2 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.2 / 20, rel=0.2)  # the pairing takes the clips' spread out
    assert statistics.ratio_of_means([2, 4], [4, 8]) == {"value": 0.5, "interval": [0.5, 0.5]}


def test_codec_is_the_models_own(pipeline):
    codec = fidelity.Codec(pipeline, 3)
    frames = world.render(world.sample_clip(0, 0, "held_out"), world.frame_times(7), pipeline.resolution)
    latents = codec.encode(frames)
    whole = pipeline.autoencoder.encode(pipeline.params["vae"], frames.astype(np.float32) / 127.5 - 1)
    np.testing.assert_allclose(latents, whole, atol=1e-5)
    decoded = codec.decode_video(latents)
    assert decoded.shape == frames.shape
    # The first window (chunk 3, overlap 1) gives the first two frames, with the third as context.
    direct = pipeline.decoder.decode(pipeline.params["video_decoder"], pipeline.autoencoder.unscale(latents[None, :3]))
    expected = np.clip(np.asarray(direct[0, :2]) * 127.5 + 127.5, 0, 255)
    assert np.abs(decoded[:2] - expected).max() <= 0.51
    assert psnr(codec.resize(frames, pipeline.resolution), frames) == float("inf")
    upsampled = codec.upsample(latents, 4)
    assert upsampled.shape[0] == 25
    np.testing.assert_array_equal(upsampled[::4], latents)


def test_strip_and_sheet():
    frames = np.stack([np.full((8, 8, 3), 10 * k, np.uint8) for k in range(16)])
    piece = strip(frames, np.full((8, 8, 3), 200, np.uint8), 4)
    assert piece.shape == (8, 8 + 12 + 4 * 8 + 3 * 2, 3)
    assert piece[0, 20 :: 8 + 2, 0].tolist() == [0, 50, 100, 150]
    large = strip(np.repeat(np.repeat(frames, 64, 1), 64, 2), np.full((512, 512, 3), 200, np.uint8), 4)
    assert large.shape == (160, 160 + 12 + 4 * 160 + 3 * 2, 3)
    assert large[0, 172 :: 160 + 2, 0].tolist() == [0, 50, 100, 150]
    sheet = captioned_sheet([piece, piece], ["a caption that is wider than its strip", "two\nlines"])
    assert sheet.shape[1] > piece.shape[1] + 4
    rows = np.flatnonzero((sheet[:, 2:10] == 200).all(axis=(1, 2)))
    assert len(rows) == 16
    assert (sheet[: rows[0]] < 128).any()  # the text
    with pytest.raises(ValueError, match="needs one caption for each of its strips; got 0 and 0"):
        captioned_sheet([], [])


def test_result_log(tmp_path):
    path = tmp_path / "log.jsonl"
    log = ResultLog(path, {"seed": 1})
    log.append([{"key": "a", "value": 1.5}])
    assert ResultLog(path, {"seed": 1}).records == {"a": {"key": "a", "value": 1.5}}
    with pytest.raises(ValueError, match="another seed"):
        ResultLog(path, {"seed": 2})
    path.write_text("hello\n")
    with pytest.raises(ValueError, match="no file of results"):
        ResultLog(path, {"seed": 1})
