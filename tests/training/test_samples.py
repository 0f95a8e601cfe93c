import numpy as np
import pytest

from videogen_jax.training.samples import column_order, comparison

COLOURS = {"drawn": (200, 0, 0), "truth": (0, 200, 0), "reference": (0, 0, 200)}


def test_conditions_come_first_and_then_the_truth():
    assert column_order(["drawn", "truth", "reference"]) == ["reference", "truth", "drawn"]
    assert column_order(["upsampled", "truth", "blended"]) == ["truth", "blended", "upsampled"]


@pytest.mark.parametrize("side", [32, 128, 160])
def test_examples_stand_below_their_captions_with_their_columns_in_order(side):
    columns = {
        name: np.broadcast_to(np.uint8(colour), (2, 1 if name == "reference" else 3, side, side, 3)).copy()
        for name, colour in COLOURS.items()
    }
    columns["drawn"][1, 2] = 255
    sheet = comparison(columns, ["a red circle", "a caption that is far too long " * 9])
    shown = max(side, 128)
    assert sheet.shape[0] == 3
    assert abs(sheet.shape[2] - 3 * shown) < 30  # the caption was broken into lines
    for frame, drawn in zip(sheet, (2, 2, 1), strict=True):
        for name, examples in (("reference", 2), ("truth", 2), ("drawn", drawn)):
            assert (frame == COLOURS[name]).all(axis=-1).sum() == examples * shown**2
    middle = sheet[0, np.flatnonzero((sheet[0] == COLOURS["truth"]).all(axis=-1).any(axis=1))[0]]
    places = [np.flatnonzero((middle == COLOURS[name]).all(axis=-1))[0] for name in ("reference", "truth", "drawn")]
    assert np.diff(places).tolist() == [shown + 4, shown + 4]
    assert (sheet[0, :20] < 100).any()  # letters
    assert (comparison(columns)[0, :19] == 255).all()
