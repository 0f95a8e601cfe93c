"""The scripts that draw the README's pictures, and the notebook, run from its first cell to its last."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jax
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from examples import pipeline_picture, readme_gallery
from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.sampling.request import SamplingRequest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOK = EXAMPLES / "from_prompt_to_video.ipynb"


def run_notebook(changes: dict[str, str]) -> str:
    """What its cells print, each of `changes` made once in them; raises what a cell raises.

    Its last cell compares the steps with the pipeline's one call.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for old, new in changes.items():
        (cell,) = (cell for cell in notebook.cells if old in cell.source)
        cell.source = cell.source.replace(old, new)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": EXAMPLES}})
    client.execute()
    return "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "stream"
    )


def test_the_notebook_runs_with_the_tiny_model(tiny_model):
    sizes = {"latent_size=(16, 16)": "latent_size=(8, 8)", "truth[15]": "truth[3]"}
    model = {"from_pretrained()": f"from_pretrained({str(tiny_model)!r})"}
    printed = run_notebook({**model, **sizes})
    assert "cascade_8    2 of 2, showing (1, 4, 16, 16, 3)" in printed


def test_the_model_that_comes_with_the_code_is_whole():
    """Its weights fit its networks, and are numbers; the slow test below makes a video with it."""
    pipe = VideoGenPipeline.from_pretrained()
    assert pipe.index.cascade == ("cascade_4", "cascade_8", "cascade_16")
    assert SamplingRequest.from_keywords("a video").resolve(pipe.index).num_frames == 31
    assert None not in (pipe.reference, pipe.temporal, pipe.decoder)
    leaves = jax.tree.leaves(pipe.params)
    assert len(leaves) > 1000
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in map(np.asarray, leaves) if leaf.ndim > 1)


@pytest.mark.slow
def test_the_notebook_runs_with_few_steps():
    """As it is kept, with the model that comes with the code: two minutes of compiling."""
    assert "cascade_16   2 of 2, showing (1, 16, 128, 128, 3)" in run_notebook({"STEPS = None": "STEPS = 2"})


def test_the_notebook_is_kept_as_it_was_run():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert NOTEBOOK.stat().st_size < 2_000_000


def test_a_gallery_shows_each_video_above_its_sentence():
    videos = np.zeros((5, 2, 128, 128, 3), np.uint8)
    videos[:, 1] = 10 + 20 * np.arange(5)[:, None, None, None]
    frames = readme_gallery.gallery(videos, ["a small red circle growing on a striped gray background"] * 5)
    assert frames.shape[0] == 2
    places = [np.argwhere((frames[1] == 10 + 20 * number).all(axis=-1)) for number in range(5)]
    assert [len(place) for place in places] == [128**2] * 5
    tops, lefts = np.stack([place.min(axis=0) for place in places]).T
    assert tops[0] == tops[1] == tops[2] == tops[3] < tops[4]
    assert lefts[0] == lefts[4] < lefts[1] < lefts[2] < lefts[3]
    np.testing.assert_array_equal(frames[0, 140:180], frames[1, 140:180])  # the sentences stand still
    assert readme_gallery.short("a small red circle growing on a striped gray background") == (
        "small red circle growing\non striped gray"
    )


def test_the_picture_of_the_pipeline_holds_what_the_stages_made():
    pictures = {"reference": np.zeros((32, 32, 3), np.uint8), "decode": np.zeros((5, 32, 32, 3), np.uint8)}
    pictures |= {"cascade_2": np.zeros((3, 16, 16, 3), np.uint8), "cascade_4": np.zeros((3, 32, 32, 3), np.uint8)}
    svg = ElementTree.fromstring(pipeline_picture.draw({**pictures, "temporal": pictures["decode"]}, [2, 4], 2))
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in svg.iter(f"{space}text")]
    assert {"reference image", "cascade 2", "cascade 4", "video decoder"} <= set(texts)
    assert len(list(svg.iter(f"{space}image"))) == 1 + 4 * 3
    width, height = float(svg.get("width")), float(svg.get("height"))
    for image in svg.iter(f"{space}image"):
        assert 0 <= float(image.get("x")) <= width - float(image.get("width"))
        assert 0 <= float(image.get("y")) <= height - float(image.get("height"))
