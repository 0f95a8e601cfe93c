"""Sheets of many videos, each a strip of its frames under its caption."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_BACKGROUND, _TEXT = (255, 255, 255), (20, 20, 20)
_GAP, _REFERENCE_GAP, _FONT_SIZE, _LINE = 2, 12, 14, 19  # pixels
_MOST_HEIGHT = 160  # pixels; higher frames are shown smaller


def strip(frames: np.ndarray, reference: np.ndarray, count: int = 7) -> np.ndarray:
    """A video at a glance: its reference image, a wider gap, then `count` frames from the first to the last.

    frames: uint8 `(T, H, W, 3)`; reference: uint8 `(H, W, 3)`. Fewer frames than `count` are all shown. Returns uint8
    `(H, width, 3)`, H at most 160.
    """
    chosen = frames[np.unique(np.rint(np.linspace(0, len(frames) - 1, count)).astype(int))]
    if frames.shape[1] > _MOST_HEIGHT:
        chosen, reference = [_shrunk(frame) for frame in chosen], _shrunk(reference)
    height = chosen[0].shape[0]

    def blank(width):
        return np.full((height, width, 3), _BACKGROUND, np.uint8)

    pieces = [reference, blank(_REFERENCE_GAP)]
    for frame in chosen:
        pieces += [frame, blank(_GAP)]
    return np.concatenate(pieces[:-1], axis=1)


def _shrunk(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    size = (max(1, round(width * _MOST_HEIGHT / height)), _MOST_HEIGHT)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def captioned_sheet(strips: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """Strips under one another, each below its caption, which may have several lines; uint8 `(H, W, 3)`.

    Raises:
      ValueError: there is none, or not one caption for each.
    """
    if not strips or len(strips) != len(captions):
        raise ValueError(f"a sheet takes at least one strip and a caption for each; got {len(strips)}, {len(captions)}")
    font = ImageFont.load_default(_FONT_SIZE)
    lines = [caption.splitlines() or [""] for caption in captions]
    width = max(
        *(piece.shape[1] for piece in strips), *(int(font.getlength(line)) + 1 for text in lines for line in text)
    )
    height = sum(piece.shape[0] + _LINE * len(text) + 2 * _GAP for piece, text in zip(strips, lines, strict=True))
    sheet = Image.new("RGB", (width + 2 * _GAP, height), _BACKGROUND)
    draw, top = ImageDraw.Draw(sheet), 0
    for piece, text in zip(strips, lines, strict=True):
        for line in text:
            draw.text((_GAP, top), line, fill=_TEXT, font=font)
            top += _LINE
        sheet.paste(Image.fromarray(piece), (_GAP, top))
        top += piece.shape[0] + 2 * _GAP
    return np.asarray(sheet)
