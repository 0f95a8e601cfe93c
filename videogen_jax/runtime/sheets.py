"""Sheets of several videos, each as a captioned strip of its frames."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_BACKGROUND, _TEXT = (255, 255, 255), (20, 20, 20)
_GAP, _REFERENCE_GAP, _FONT_SIZE, _LINE = 2, 12, 14, 19  # pixels
_MAX_HEIGHT = 160  # pixels; taller frames are shrunk


def strip(frames: np.ndarray, reference: np.ndarray, count: int = 7) -> np.ndarray:
    """Lay out a reference image and evenly spaced frames of its video side by side.

    Args:
      frames: uint8 `(T, H, W, 3)`.
      reference: uint8 `(H, W, 3)`.
      count: number of frames, from the first to the last; a shorter video has fewer.

    Returns: uint8 `(h, w, 3)`, h at most 160.
    """
    selected = frames[np.unique(np.rint(np.linspace(0, len(frames) - 1, count)).astype(int))]
    if frames.shape[1] > _MAX_HEIGHT:
        selected, reference = [_shrunk(frame) for frame in selected], _shrunk(reference)
    height = selected[0].shape[0]

    def blank(width):
        return np.full((height, width, 3), _BACKGROUND, np.uint8)

    pieces = [reference, blank(_REFERENCE_GAP)]
    for frame in selected:
        pieces += [frame, blank(_GAP)]
    return np.concatenate(pieces[:-1], axis=1)


def _shrunk(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    size = (max(1, round(width * _MAX_HEIGHT / height)), _MAX_HEIGHT)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def captioned_sheet(strips: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """Stack strips vertically, each below its caption.

    Args:
      strips: uint8 `(h, w, 3)`, of any sizes.
      captions: one for each strip; may have several lines.

    Returns: uint8 `(H, W, 3)`.

    Raises:
      ValueError: there are no strips, or the number of captions differs.
    """
    if not strips or len(strips) != len(captions):
        raise ValueError(f"a sheet needs one caption for each of its strips; got {len(strips)} and {len(captions)}")
    font = ImageFont.load_default(_FONT_SIZE)
    texts = [caption.splitlines() or [""] for caption in captions]
    width = max(
        *(piece.shape[1] for piece in strips), *(int(font.getlength(line)) + 1 for text in texts for line in text)
    )
    height = sum(piece.shape[0] + _LINE * len(text) + 2 * _GAP for piece, text in zip(strips, texts, strict=True))
    sheet = Image.new("RGB", (width + 2 * _GAP, height), _BACKGROUND)
    draw, top = ImageDraw.Draw(sheet), 0
    for piece, text in zip(strips, texts, strict=True):
        for line in text:
            draw.text((_GAP, top), line, fill=_TEXT, font=font)
            top += _LINE
        sheet.paste(Image.fromarray(piece), (_GAP, top))
        top += piece.shape[0] + 2 * _GAP
    return np.asarray(sheet)
