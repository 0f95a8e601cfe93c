"""A stage's samples beside the training examples they are of, as one picture."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from videogen_jax.runtime.sheets import captioned_sheet

_FIRST = ("reference", "truth")  # columns come in this order, then the sampled ones
_SIDE = 128  # pixels, to which smaller frames are enlarged
_GAP = 4  # pixels between columns
_LETTER = 7  # pixels, the width of a letter in a caption


def column_order(names: Sequence[str]) -> list[str]:
    """Sort the names of `Stage.sample`'s arrays: reference, ground truth, then the samples."""
    return sorted(names, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))


def comparison(columns: Mapping[str, np.ndarray], captions: Sequence[str] | None = None) -> np.ndarray:
    """Lay out examples under one another, each with its columns side by side, below its caption.

    Args:
      columns: uint8 `(B, T, H, W, 3)`, of one size; one with T = 1 is repeated beside the others. Frames smaller than
        128 pixels are enlarged, each pixel to a square.
      captions: B texts, or None.

    Returns: uint8 `(T, H', W', 3)`.
    """
    ordered = [columns[name] for name in column_order(columns)]
    length = max(column.shape[1] for column in ordered)
    pieces = []
    for column in ordered:
        factor = max(1, _SIDE // column.shape[2])
        enlarged = column.repeat(factor, axis=2).repeat(factor, axis=3)
        pieces.append(np.broadcast_to(enlarged, (len(column), length, *enlarged.shape[2:])))
        pieces.append(np.full((*pieces[-1].shape[:3], _GAP, 3), 255, np.uint8))
    examples = np.concatenate(pieces[:-1], axis=3)  # (B, T, H, columns' width, 3)
    width = max(20, examples.shape[3] // _LETTER)
    texts = [""] * len(examples) if captions is None else [textwrap.fill(caption, width) for caption in captions]
    return np.stack([captioned_sheet(list(frames), texts) for frames in examples.swapaxes(0, 1)])
