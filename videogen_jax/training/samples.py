"""What a stage makes of training examples, beside the truth, as one picture to be looked at."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from videogen_jax.runtime.sheets import captioned_sheet

_FIRST = ("reference", "truth")  # columns come in this order, then those that the stage made
_SIDE = 128  # pixels, to which smaller frames are enlarged
_GAP = 4  # pixels between columns
_LETTER = 7  # pixels, the width of one in a caption


def column_order(names: Sequence[str]) -> list[str]:
    """The names of what `Stage.sample` gives, from the conditions over the truth to what was made."""
    return sorted(names, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))


def comparison(columns: Mapping[str, np.ndarray], captions: Sequence[str] | None = None) -> np.ndarray:
    """Examples under one another, each with its columns side by side, under its caption if there are captions.

    Args:
      columns: uint8 `(B, T, H, W, 3)`, of one size; one with T = 1 stands still beside the others. Frames smaller than
        128 pixels are enlarged, each pixel to a square.
      captions: B texts, or None.

    Returns:
      uint8 `(T, H', W', 3)`.
    """
    ordered = [columns[name] for name in column_order(columns)]
    length = max(column.shape[1] for column in ordered)
    pieces = []
    for column in ordered:
        factor = max(1, _SIDE // column.shape[2])
        enlarged = column.repeat(factor, axis=2).repeat(factor, axis=3)
        pieces.append(np.broadcast_to(enlarged, (len(column), length, *enlarged.shape[2:])))
        pieces.append(np.full((*pieces[-1].shape[:3], _GAP, 3), 255, np.uint8))
    rows = np.concatenate(pieces[:-1], axis=3)
    width = max(20, rows.shape[3] // _LETTER)
    texts = [""] * len(rows) if captions is None else [textwrap.fill(caption, width) for caption in captions]
    return np.stack([captioned_sheet(list(frames), texts) for frames in rows.swapaxes(0, 1)])
