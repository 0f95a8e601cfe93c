"""A whole evaluation on captions from a file and real videos, of a tiny untrained model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

import videogen_jax
from configs.webvid.evaluate_msrvtt import get_config as get_msrvtt
from configs.webvid.evaluate_ucf101 import get_config as get_ucf101
from tests.data.synthetic_videos import write_video
from tests.shapes.tiny_classifier import write_tiny_classifier
from videogen_jax.data.entries import Item
from videogen_jax.data.excerpts import Excerpt, read_excerpt
from videogen_jax.metrics import evaluation, real_clips
from videogen_jax.metrics.captions import build_captions
from videogen_jax.metrics.frechet import Moments, frechet_distance
from videogen_jax.metrics.networks.clip import load_clip
from videogen_jax.runtime.arrays import resize, to_unit
from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.shapes.features import load_shapes_classifier
from videogen_jax.video_io import read_image

CAPTIONS = ("a dog runs on a beach", "a man plays the piano", "a boat at sea", "a car in the rain")


@pytest.fixture(autouse=True, scope="module")
def _loaded_once(tiny_pipeline):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoGenPipeline, "from_pretrained", lambda *_, **__: tiny_pipeline)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Captions, the videos that they describe, and two networks: CLIP and a classifier, small and random."""
    folder = tmp_path_factory.mktemp("files")
    rows = [{"video_id": f"video{k}", "caption": caption} for k, caption in enumerate(CAPTIONS)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "videos").mkdir()
    for k in range(5):  # the last of them is not described
        path = folder / "videos" / f"video{k}.mp4"
        write_video(path, np.arange(30) / 30, codec="h264", size=(48, 64), seed=k, clock=False)
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tower, "vocab_size": 637, "eos_token_id": 636, "bos_token_id": 635}
    vision = {**tower, "image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder / "clip")
    shutil.copytree(
        Path(videogen_jax.__file__).parent / "embedded/shapes/tokenizer", folder / "clip", dirs_exist_ok=True
    )
    write_tiny_classifier(folder / "classifier")
    return folder


def _config(files, **fields):
    config = get_msrvtt()
    config.update({"batch_size": 2, "captions": {"file": str(files / "captions.jsonl")}})
    config.real.update({"folder": str(files / "videos"), "clips": 0, "num_workers": 1})
    config.weights.clip = str(files / "clip")
    with config.unlocked():  # of the distances' networks the only one that is small
        config.weights.shapes_classifier = str(files / "classifier")
    config.update(fields)
    return config


@pytest.fixture(scope="module")
def evaluated(files, tiny_model, _loaded_once, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    return folder, evaluation.evaluate(_config(files), tiny_model, folder)


def test_numbers_are_those_of_the_videos(evaluated, files, tiny_pipeline):
    folder, metrics = evaluated
    section = metrics["prompts"]
    assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert sorted(record["id"] for record in section["results"]) == [f"video{k}#0" for k in range(4)]
    assert {record["prompt"] for record in section["results"]} == set(CAPTIONS)
    assert set(section["published"]) == {"clipsim", "clip_consistency", "shapes_frechet_distance"}
    assert set(section["not_measured"]) == {"fvd", "fid", "video_inception_score"}
    assert (section["real"]["clips"], section["real"]["frames"], section["real"]["skipped"]) == (4, 7, [])
    assert read_image(folder / "contact_sheet.png").shape[0] > 4 * tiny_pipeline.resolution

    prompts, seeds = zip(*((record["prompt"], record["seed"]) for record in section["results"]), strict=True)
    made = [v for k in (0, 2) for v in tiny_pipeline(prompts[k : k + 2], seed=seeds[k : k + 2], batch_size=2).frames]
    clip = load_clip(files / "clip")
    texts = clip.embed_texts(prompts)
    cosines = [100 * float((clip.embed_images(v) @ t).mean()) for v, t in zip(made, texts, strict=True)]
    assert section["published"]["clipsim"]["value"] == pytest.approx(np.mean(cosines), rel=1e-4)

    network, params = load_shapes_classifier(files / "classifier")
    real = [
        read_excerpt(
            Item(f"video{k}", None, str(files / "videos" / f"video{k}.mp4"), ".mp4"),
            Excerpt(7, 15.0, 16, "random"),
            real_clips._number(0, f"video{k}"),
        )
        for k in range(4)
    ]
    sides = [
        Moments.of(
            np.concatenate(
                [network.apply({"params": params}, resize(to_unit(v[None, [0, 2, 4, 6]]), 16))[1] for v in side]
            )
        )
        for side in (made, real)
    ]
    found = section["published"]["shapes_frechet_distance"]
    assert found["counts"] == [4, 4]
    assert found["value"] == pytest.approx(frechet_distance(*sides), rel=1e-3)


def test_stopped_and_started_again(evaluated, files, tiny_model, tmp_path, monkeypatch, stop_sampling, capsys):
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(_config(files), tiny_model, tmp_path)
    stop_sampling["after"] = 1  # the second batch, and no more
    monkeypatch.setattr(real_clips.Workers, "submit", lambda *_: pytest.fail("a file is read again"))
    again = evaluation.evaluate(_config(files), tiny_model, tmp_path)
    assert again["prompts"] == evaluated[1]["prompts"] | {"settings": again["prompts"]["settings"]}
    evaluation.print_table(again)
    printed = capsys.readouterr().out
    assert "captions.jsonl" in printed
    assert "CLIPSIM, times 100" in printed

    fewer = _config(files)
    fewer.captions.videos = 2
    without = evaluation.evaluate(fewer, tiny_model, tmp_path)  # nothing is left to do
    assert [r["key"] for r in without["prompts"]["results"]] == ["0-0000", "0-0001"]
    other = _config(files)
    other.captions.file = str(tmp_path / "captions.txt")
    Path(other.captions.file).write_text("another caption\n")
    other.real.folder = ""
    with pytest.raises(ValueError, match=r"prompts\.jsonl holds results of another captions, split"):
        evaluation.evaluate(other, tiny_model, tmp_path)


def test_without_real_videos(files, tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    config = get_ucf101()
    config.update({"batch_size": 2, "captions": {"videos": 2}})
    config.weights.clip = str(files / "clip")
    metrics = evaluation.evaluate(config, tiny_model, tmp_path)
    assert metrics["split"] == "ucf101, sentences"
    assert {record["prompt"] for record in metrics["prompts"]["results"]} == {
        caption.text for caption in build_captions(config, "held_out").captions if caption.videos
    }
    assert set(metrics["prompts"]["published"]) == {"clipsim", "clip_consistency"}
    assert read_image(tmp_path / "contact_sheet.png").shape[0] > 2 * 16
    config.captions.videos = 1  # one of those that are made already
    assert len(evaluation.evaluate(config, tiny_model, tmp_path)["prompts"]["results"]) == 1
    evaluation.print_table(metrics)
    printed = capsys.readouterr().out
    assert "Fréchet video distance (I3D): pass --config.weights.i3d=PATH" in printed
    assert "and --config.real.folder=FOLDER, real videos" in printed
    assert "shapes Fréchet" not in printed


@pytest.mark.parametrize(
    ("fields", "split", "message"),
    [
        ({"parts": ("prompts", "decoder")}, "held_out", "config.parts has 'decoder', which is measured on rendered"),
        ({}, "train", "split is 'train', but only the shapes world is split: leave out --split"),
        ({"batch_size": 0}, "held_out", "config.batch_size is 0"),
        ({"weights": {"i3d": "nowhere"}}, "held_out", "the model makes 7 frames, but i3d takes 16"),
        ({"real": {"folder": "nowhere"}}, "held_out", "config.real.folder is nowhere"),
        ({"captions": {"file": "nowhere.txt"}}, "held_out", "config.captions.file is nowhere.txt"),
    ],
)
def test_wrong_config(files, tiny_model, tmp_path, fields, split, message):
    with pytest.raises(ValueError, match=message):
        evaluation.evaluate(_config(files, **fields), tiny_model, tmp_path, split)
    assert list(tmp_path.iterdir()) == []  # before anything is written
