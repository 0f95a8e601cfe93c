"""Draws docs/gallery.gif: videos that the embedded model makes of sentences it was not trained on.

    python examples/readme_gallery.py

The sentences are the first 12 of the held-out ones, each with the seed 0: none is chosen by hand. A held-out sentence
joins a colour, a shape and a motion that never met in training.
"""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.shapes.captions import sample_captions
from videogen_jax.video_io import write_video
from videogen_jax.weights.hub import EMBEDDED

COLUMNS, ROWS = 4, 3
CARD, TEXT = (246, 248, 250), (36, 41, 47)
GAP, FONT_SIZE, LINE, LINES, LETTERS = 10, 11, 14, 3, 24  # pixels, and letters a line


def short(sentence: str) -> str:
    """ "a small red circle growing on a gray background" -> "small red circle growing on gray", in lines."""
    words = sentence.removeprefix("a ").removesuffix(" background").replace(" on a ", " on ")
    return textwrap.fill(words, LETTERS)


def gallery(videos: np.ndarray, sentences: Sequence[str]) -> np.ndarray:
    """Videos uint8 `(B, T, H, W, 3)` in a grid, each above its sentence: uint8 `(T, H', W', 3)`."""
    count, length, height, width, _ = videos.shape
    cell = (height + LINES * LINE + GAP, width + GAP)
    size = (COLUMNS * cell[1] + GAP, -(-count // COLUMNS) * cell[0] + GAP)
    card, font = Image.new("RGB", size, CARD), ImageFont.load_default(FONT_SIZE)
    draw = ImageDraw.Draw(card)
    corners = [(GAP + index // COLUMNS * cell[0], GAP + index % COLUMNS * cell[1]) for index in range(count)]
    for (top, left), sentence in zip(corners, sentences, strict=True):
        draw.multiline_text((left, top + height + 2), short(sentence), fill=TEXT, font=font, spacing=2)
    frames = np.repeat(np.asarray(card)[None], length, axis=0)
    for (top, left), video in zip(corners, videos, strict=True):
        frames[:, top : top + height, left : left + width] = video
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=EMBEDDED, help="model folder; the embedded model if not given")
    parser.add_argument("--output", type=Path, default=Path("docs/gallery.gif"), help="the .gif to write")
    args = parser.parse_args()
    pipeline = VideoGenPipeline.from_pretrained(args.model)
    sentences = sample_captions(COLUMNS * ROWS)
    videos = []
    for begin in range(0, len(sentences), COLUMNS):
        result = pipeline(sentences[begin : begin + COLUMNS], seed=0)
        videos.append(result.frames)
        print(*sentences[begin : begin + COLUMNS], sep="\n")
    write_video(args.output, gallery(np.concatenate(videos), sentences), result.fps)


if __name__ == "__main__":
    main()
