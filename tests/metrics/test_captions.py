"""What a model is asked for: UCF-101's classes, MSR-VTT's captions, lists, and how many videos of each."""

import importlib.util
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from configs.webvid.evaluate_msrvtt import get_config as get_msrvtt
from configs.webvid.evaluate_ucf101 import get_config as get_ucf101
from videogen_jax.metrics import captions, ucf101
from videogen_jax.metrics.caption_files import VideoCaption, read_caption_file

MSRVTT = {  # as the data set's own file, with what is not used
    "info": {"version": "1.0"},
    "videos": [
        {"id": k, "video_id": f"video{k}", "category": 9, "url": "", "start time": 0.0, "end time": 9.0, "split": split}
        for k, split in enumerate(["train", "test", "test", "validate", "test"])
    ],
    "sentences": [
        {"sen_id": 5 * n + k, "video_id": f"video{k}", "caption": f"caption {n} of video {k}"}
        for n in range(4)
        for k in range(5)
    ],
}


def write_json(path, content):
    path.write_text(json.dumps(content))
    return str(path)


def test_classes_are_those_of_the_data_set():
    package = Path(importlib.util.find_spec("tensorflow_datasets").origin).parent
    names = (package / "video/ucf101_labels.txt").read_text().split()
    assert len(ucf101.CLASSES) == 101
    assert set(ucf101.CLASSES) == set(names)
    assert list(ucf101.CLASSES) == sorted(names, key=str.lower)  # classInd.txt's order
    assert len(set(ucf101.SENTENCES.values())) == 101
    assert all(re.fullmatch(r"[A-Z][a-z,' -]+\.", text) for text in ucf101.SENTENCES.values())
    assert [ucf101.words(name) for name in ("ApplyEyeMakeup", "TaiChi", "Shotput")] == [
        "apply eye makeup",
        "tai chi",
        "shotput",
    ]


def test_classes_of_paths():
    assert ucf101.class_of("HandstandPushups/v_HandStandPushups_g01_c01.avi") == "HandstandPushups"
    assert ucf101.class_of("v_HandStandPushups_g01_c01.avi") == "HandstandPushups"
    assert ucf101.class_of("videos/v_YoYo_g25_c05.avi") == "YoYo"
    assert ucf101.class_of("videos/holiday.avi") is None


def test_videos_are_shared_out_over_the_classes(tmp_path):
    config = get_ucf101()
    found = captions.build_captions(config, "held_out")
    assert sum(caption.videos for caption in found.captions) == 10_000
    assert {caption.videos for caption in found.captions} == {99, 100}
    examples = found.examples(seed=0)
    assert len(examples) == 10_000
    assert examples["98-0100"].prompt == ucf101.SENTENCES["YoYo"]
    assert len({example.seed for example in examples.values()}) > 9_990

    lines = ["Archery/v_Archery_g01_c01.avi 3"] * 6 + ["YoYo/v_YoYo_g01_c01.avi 101"] * 3 + ["Punch/v_Punch_g1_c1.avi"]
    (tmp_path / "trainlist01.txt").write_text("\n".join(lines))
    config.update({"captions": {"videos": 25, "prompts_from": "class_names"}})
    config.captions.class_counts = str(tmp_path / "trainlist01.txt")
    found = captions.build_captions(config, "held_out")
    shares = {caption.id: caption.videos for caption in found.captions if caption.videos}
    assert {name: abs(shares[name] - 25 * n / 10) < 1 for name, n in (("Archery", 6), ("YoYo", 3), ("Punch", 1))} == {
        "Archery": True,
        "YoYo": True,
        "Punch": True,
    }
    assert Counter(example.prompt for example in found.examples(0).values())["yo yo"] == shares["YoYo"]
    assert sum(shares.values()) == 25

    (tmp_path / "trainlist01.txt").write_text("Archery/v_Archery_g01_c01.avi 3\nholiday.avi 2\n")
    with pytest.raises(ValueError, match=r"class_counts is .*trainlist01\.txt: line 2, 'holiday\.avi', is of no class"):
        captions.build_captions(config, "held_out")


def test_one_caption_of_each_video_of_msrvtt(tmp_path):
    path = write_json(tmp_path / "test_videodatainfo.json", MSRVTT)

    def build(**fields):
        config = get_msrvtt()
        config.update({"seed": fields.pop("seed", 0), "captions": {"file": path, **fields}})
        return captions.build_captions(config, "held_out")

    one = build()
    assert one.described == {"video1", "video2", "video4"}
    assert sorted(caption.id.split("#")[0] for caption in one.captions) == ["video1", "video2", "video4"]
    for caption in one.captions:
        video, number = caption.id.removeprefix("video").split("#")
        assert caption.text == f"caption {number} of video {video}"
    assert build() == one
    assert {tuple(sorted(c.id for c in build(seed=seed).captions)) for seed in range(8)} != {one.captions}
    assert build(videos=2).captions == one.captions[:2]
    assert build(videos=2).identity == one.identity  # the log of fewer videos goes on with more
    assert len(build(of_each=0).captions) == 12
    assert len(build(of_each=0, split="").captions) == 20
    assert len(build(of_each=2, seeds=3).examples(0)) == 18
    with pytest.raises(ValueError, match=r"videos is 4, but .* describes 3"):
        build(videos=4)
    with pytest.raises(ValueError, match=r"captions\.split 'val', only 'test', 'train', 'validate'"):
        build(split="val")


def test_lists_of_captions(tmp_path):
    text, table, lines = (tmp_path / name for name in ("a.txt", "a.csv", "a.jsonl"))
    text.write_text("A dog runs.\n  Ein Hund läuft. \n\n", encoding="utf-8-sig")
    table.write_text('video_id,sentence\nvideo7,"A dog, running"\nvideo8,A cat\nvideo7,A hound\n')
    lines.write_text('{"text": "A dog runs."}\n\n{"caption": "A cat", "video_id": 12}\n')
    assert read_caption_file(text) == [VideoCaption("1", 0, "A dog runs."), VideoCaption("2", 0, "Ein Hund läuft.")]
    assert read_caption_file(table) == [
        VideoCaption("video7", 0, "A dog, running"),
        VideoCaption("video8", 0, "A cat"),
        VideoCaption("video7", 1, "A hound"),
    ]
    assert read_caption_file(lines) == [VideoCaption("1", 0, "A dog runs."), VideoCaption("12", 0, "A cat")]


def test_blank_captions_of_msrvtt_are_left_out(tmp_path):
    blank = {**MSRVTT, "sentences": [*MSRVTT["sentences"], {"sen_id": 99, "video_id": "video1", "caption": " "}]}
    assert len(read_caption_file(write_json(tmp_path / "a.json", blank), "test")) == 12


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", r"a\.json is not JSON"),
        ("a.json", '{"videos": []}', r"a\.json has no list 'sentences'"),
        ("a.json", '{"videos": [{"id": 1}], "sentences": []}', r"videos\[0\] has no text 'video_id'"),
        (
            "a.json",
            '{"videos": [], "sentences": [{"video_id": "video1", "caption": "a"}]}',
            r"sentences\[0\] describes 'video1', which is not among the videos",
        ),
        (
            "a.json",
            '{"videos": [{"video_id": "video1"}], "sentences": [{"video_id": "video1"}]}',
            r"sentences\[0\] has no text 'caption'",
        ),
        ("a.json", '{"videos": [{"video_id": "video1"}], "sentences": []}', "has no captions"),
        ("a.txt", "a\n\nb\n", r"a\.txt, line 2: its caption is empty"),
        ("a.txt", "", r"a\.txt has no captions"),
        ("a.txt", b"caf\xe9", r"a\.txt is not UTF-8"),
        ("a.csv", "video_id,words\n1,a\n", r"a\.csv has the columns video_id, words, but needs one of caption"),
        ("a.csv", "video_id,caption\n1\n", r"a\.csv, line 2: it has no caption"),
        ("a.jsonl", '{"caption": "a"}\nb\n', r"a\.jsonl, line 2 is not JSON"),
        ("a.jsonl", '{"caption": 3}\n', r"a\.jsonl, line 1: its caption is not a string"),
        ("a.docx", "a", r"must end in one of \.json, \.txt, \.csv, \.jsonl"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_caption_file(path)


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (get_msrvtt, {}, "config.captions.file is empty: name the file"),
        (get_msrvtt, {"file": "nowhere.json"}, "config.captions.file is nowhere.json, but there is no such file"),
        (get_msrvtt, {"of_each": -1}, "config.captions.of_each is -1"),
        (get_msrvtt, {"seeds": 0}, "config.captions.seeds is 0"),
        (get_msrvtt, {"source": "flickr"}, "config.captions.source is 'flickr'"),
        (get_ucf101, {"prompts_from": "labels"}, "config.captions.prompts_from is 'labels'"),
        (get_ucf101, {"videos": 0}, "config.captions.videos is 0"),
        (get_ucf101, {"class_counts": "nowhere.txt"}, "class_counts is nowhere.txt, which cannot be read"),
        (get_ucf101, {"source": "file"}, "config.captions.class_counts is unknown; there may be file, split, of_each"),
    ],
)
def test_wrong_fields(config, fields, message):
    config = config()
    config.captions.update(fields)
    with pytest.raises(ValueError, match=message):
        captions.build_captions(config, "held_out")
