"""The report of evaluations whose videos are rendered clips: what is wrong with each is known."""

import base64
import dataclasses
import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from videogen_jax.metrics.attributes import read_attributes, tally_attributes
from videogen_jax.metrics.cases import add_expected, choose_cases, confusion
from videogen_jax.metrics.generated_videos import GeneratedVideos
from videogen_jax.metrics.plots import plot_distribution
from videogen_jax.metrics.report import write_report
from videogen_jax.metrics.table import table_rows
from videogen_jax.shapes import world
from videogen_jax.shapes.evaluation import EVALUATION as SHAPES
from videogen_jax.shapes.reader import ATTRIBUTES, IMAGE_ATTRIBUTES
from videogen_jax.video_io import read_video

_VOID = {"meta", "img", "br", "link", "hr", "input"}
WRONG = {1: "green", 4: "green", 5: "white"}  # videos whose prompt names another colour than they show


class Page(HTMLParser):
    """Reads a page strictly: what is opened is closed in its order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.headings, self._open = [], "", [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        assert len(dict(attributes)) == len(attributes), (tag, attributes)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, (tag, self.getpos())

    def handle_data(self, text):
        if not {"style", "script"} & set(self._open[-1:]):
            self.text += text.replace("\N{NO-BREAK SPACE}", " ")

    def check_headings(self):
        assert self.headings[0] == 1
        assert all(below - above <= 1 for above, below in itertools.pairwise(self.headings))

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def _fill(folder, count=8):
    """`metrics.json` and videos in `folder`, as an evaluation leaves them; returns the metrics."""
    videos, results = GeneratedVideos(folder / "videos"), []
    for number in range(count):
        clip = world.sample_clip(5, number, "held_out")
        clip = dataclasses.replace(clip, colour="red")
        frames = world.render(clip, world.frame_times(8), 32)
        caption = clip.caption.replace(" red ", f" {WRONG.get(number, 'red')} ")
        results.append(
            {
                "key": f"0-{number:04d}",
                "prompt": caption,
                "seed": 100 + number,
                **read_attributes(SHAPES, frames, frames[0], caption),
            }
        )
        videos.write(f"0-{number:04d}", frames, frames[0], 4, caption)
    section = {
        "video": tally_attributes([record["right"] for record in results], ATTRIBUTES),
        "reference": tally_attributes([record["reference_right"] for record in results], IMAGE_ATTRIBUTES),
        "video_of_right_reference": {},
        "consistency": {"reference_psnr": {"value": 30.0, "interval": [29.0, 31.0], "count": count}},
        "published": {},
        "results": results,
        "not_measured": {"clipsim": "pass --config.weights.clip=PATH"},
    }
    return _write(folder, {"prompts": section})


def _write(folder, parts):
    metrics = {"model": "a <model>", "fingerprint": "0123abcd", "split": "held_out", "versions": {"jax": "9"}, **parts}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return metrics


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return folder, _fill(folder)


@pytest.fixture(scope="module")
def page(evaluated):
    return Page(write_report(evaluated[0], SHAPES, 2).read_text())


def test_nothing_is_fetched(page):
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "poster", "data", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:")), attributes
    assert "url(http" not in page.rawdata
    assert "@import" not in page.rawdata
    policy = page.all("meta")[1]["content"]
    assert policy.startswith("default-src 'none'")


def test_links_and_names(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a") + page.all("use"):
        target = link.get("href") or link["xlink:href"]
        assert target[1:] in ids
    used = set(re.findall(r"url\(#([^)]*)\)", page.rawdata))
    assert used <= set(ids)
    page.check_headings()
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(image["alt"] for image in page.all("img"))
    assert all(picture["aria-label"] for picture in page.all("svg"))
    assert all("muted" in video and "loop" in video and video["aria-label"] for video in page.all("video"))


def test_the_whole_table_and_what_is_not_measured(page, evaluated):
    for row in table_rows(evaluated[1]):
        for text in row:
            assert text in page.text
    assert "CLIPSIM, times 100: pass --config.weights.clip=PATH" in page.text
    assert """--config.parts='("temporal", "decoder", "autoencoder")'""" in page.text
    assert "a <model>" in page.text
    assert "5 of 8 videos (62.5%" in page.text


def test_each_video_once_as_it_was_kept(page, evaluated, tmp_path):
    folder, metrics = evaluated
    embedded = [base64.b64decode(video["src"].removeprefix("data:video/mp4;base64,")) for video in page.all("video")]
    assert len(embedded) == len(set(embedded)) == len(page.all("article"))
    shown = [article["id"].removeprefix("case-") for article in page.all("article")]
    for key, content in zip(shown, embedded, strict=True):
        assert content == (folder / "videos" / f"{key}.mp4").read_bytes()
    (tmp_path / "one.mp4").write_bytes(embedded[0])
    assert read_video(tmp_path / "one.mp4")[0].shape == (8, 32, 32, 3)
    records = {record["key"]: record for record in metrics["prompts"]["results"]}
    assert [records[key]["prompt"].split()[2] for key in shown[:2]] == ["green", "white"]  # one of each pair
    assert all(all(records[key]["right"].values()) for key in shown[2:])
    assert "said green, read red" in page.text
    assert "Colour: wrong in 3 of 8 videos" in page.text
    assert "Failures (2 of 3)" in page.text
    assert page.text.index("Colour: wrong in 3") < page.text.index("Size: wrong in 0")


def test_same_folder_same_page(evaluated, monkeypatch):
    import matplotlib

    folder, _ = evaluated
    before = write_report(folder, SHAPES, 2).read_bytes()
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 20)
    assert write_report(folder, SHAPES, 2).read_bytes() == before
    assert write_report(folder, SHAPES, 1).read_bytes() != before


def test_missing_videos_are_named(tmp_path):
    _fill(tmp_path, 4)
    whole = Page(write_report(tmp_path, SHAPES).read_text())
    assert "missing" not in whole.text
    (tmp_path / "videos" / "0-0000.mp4").unlink()
    (tmp_path / "videos" / "0-0001.png").unlink()
    (tmp_path / "videos" / "0-0002.mp4").write_bytes(b"no video")
    page = Page(write_report(tmp_path, SHAPES).read_text())
    assert "2 of 4 videos or their reference images are missing" in page.text
    assert "0-0000, 0-0001" in page.text
    assert "The video videos/0-0000.mp4 is missing." in page.text
    assert "The reference image videos/0-0001.png is missing." in page.text
    assert "The video videos/0-0002.mp4 cannot be read." in page.text
    assert len(page.all("video")) == 2
    assert len(page.all("article")) == len(whole.all("article"))
    for attributes in (whole.all("article"), page.all("article")):
        assert {a["id"] for a in attributes} == {f"case-0-000{k}" for k in range(4)}


def test_captions_that_no_reader_judges(tmp_path):
    results = [{"key": f"0-000{k}", "id": f"video70{k}", "prompt": f"<b>a dog</b> & {k}", "seed": k} for k in range(3)]
    published = {"clipsim": {"value": 28.5, "interval": [27.0, 30.0], "count": 3}}
    section = {"published": published, "results": results, "not_measured": {}, "real": {"skipped": ["broken.avi"]}}
    _write(tmp_path, {"prompts": section})
    videos = GeneratedVideos(tmp_path / "videos")
    for record in results:
        frames = np.full((4, 16, 16, 3), 60 * record["seed"], np.uint8)
        videos.write(record["key"], frames, frames[0], 4, record["prompt"])
    page = Page(write_report(tmp_path, None, 2).read_text())
    assert "27.00 to 30.00" in page.text
    assert "<b>a dog</b> & 1" in page.text
    assert "video701" in page.text
    assert "broken.avi" in page.text
    assert [article["id"] for article in page.all("article")] == ["case-0-0000", "case-0-0001"]
    page.check_headings()
    assert "only captions of the shapes world can be checked" in page.text
    assert "Attributes" not in page.text
    assert "Distributions" not in page.text


def test_evaluation_without_prompts(tmp_path):
    _write(tmp_path, {"autoencoder": {"settings": {"clips": 2}, "psnr": {"16": 30.25}, "read": {}}})
    page = Page(write_report(tmp_path, SHAPES).read_text())
    assert "PSNR at 16x16" in page.text
    assert "30.25 dB" in page.text
    assert not page.all("video")
    assert not page.all("script")  # which would look for them
    assert """--config.parts='("prompts", "temporal", "decoder")'""" in page.text


def test_another_evaluation_beside(evaluated, tmp_path):
    folder, metrics = evaluated
    other = {**metrics["prompts"], "video": {"colour": metrics["prompts"]["video"]["colour"]}, "reference": {}}
    _write(tmp_path, {"prompts": other, "autoencoder": {"settings": {"clips": 2}, "psnr": {"16": 30.25}, "read": {}}})
    page = Page(write_report(folder, SHAPES, 1, tmp_path / "metrics.json").read_text())
    assert "Beside: a <model>, split held_out, fingerprint 0123abcd (the same model)" in page.text
    assert "value, beside" in page.text
    assert "PSNR at 16x16" in page.text
    assert len(page.all("figure")) == len(Page(write_report(folder, SHAPES, 1).read_text()).all("figure")) + 1
    (tmp_path / "list.json").write_text("[]")
    for name in ("nothing.json", "list.json"):
        with pytest.raises(ValueError, match=rf"{name} is no metrics\.json of an evaluation"):
            write_report(folder, SHAPES, 1, tmp_path / name)


def _record(key, colour, read, error=0.001, **right):
    return {
        "key": key,
        "prompt": f"a small {colour} circle growing on a black background",
        "right": {"colour": colour == read, **right},
        "read": {"colour": read, "size": "small"},
        "consistency": {"warping_error": error, "reference_psnr": 30.0},
    }


def test_choice_of_cases():
    records = [
        _record("a", "red", "red", 0.003),
        _record("b", "red", "red", 0.001),
        _record("c", "blue", "blue", 0.002),
        _record("d", "red", "orange", 0.001),
        _record("e", "red", "orange", 0.005),
        _record("f", "blue", None, None),
        _record("g", "red", "orange", 0.0, size=False),
    ]
    records = add_expected(records, SHAPES)
    colour, size = sorted(choose_cases(records, 4), key=lambda cases: cases.attribute)
    assert (colour.attribute, colour.count, colour.wrong) == ("colour", 7, 4)
    # Of red read as orange, which came three times, the one with two attributes wrong, then the other pair, then again.
    assert [record["key"] for record in colour.failures] == ["g", "f", "e", "d"]
    assert [record["key"] for record in colour.best] == ["b", "c", "a"]
    assert (size.count, size.wrong, size.best) == (1, 1, ())
    assert choose_cases(records, 4)[0].attribute == "size"  # all of its videos fail
    assert confusion(records, "colour")["red", "orange"] == 3
    assert confusion(records, "colour")["blue", None] == 1
    assert [cases.failures + cases.best for cases in choose_cases(records, 0)] == [(), ()]


def test_plots_say_no_date_and_no_place():
    plot = plot_distribution([1.0, 1.0], "x", "one", 'with "quotes" & <signs>')
    assert plot == plot_distribution([1.0, 1.0], "x", "one", 'with "quotes" & <signs>')
    assert "metadata" not in plot
    assert "#00000" not in plot  # every colour is the page's
    assert 'aria-label="with &quot;quotes&quot; &amp; &lt;signs>"' in plot
