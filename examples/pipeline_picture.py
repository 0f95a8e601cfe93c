"""Draws docs/pipeline.svg: the way from a sentence to a video, with what one sentence gives on the way.

    python examples/pipeline_picture.py

The sentence is of the held-out ones that the README's gallery shows, with its seed. All pictures are the embedded
model's own, as the pipeline hands them to its callback.
"""

import argparse
import base64
import io
import textwrap
from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.video_io import check_writable
from videogen_jax.weights.hub import EMBEDDED

SENTENCE = "a large orange star moving up left quickly on a striped navy background"
SIDE, PITCH, LEFT, TOP = 96, 136, 176, 132  # pixels: pictures, columns, the first of them, their tops
GAP = 6  # between pictures of a column
WIDTH, HEIGHT = LEFT + 5 * PITCH + SIDE + 32, TOP + 3 * (SIDE + GAP) + 84
INK, FAINT, TEXT_COLOUR, REFERENCE_COLOUR = "#24292f", "#57606a", "#8250df", "#0969da"
TIMES = "\N{MULTIPLICATION SIGN}"
STYLE = f"""
text {{ font: 12px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: {INK}; text-anchor: middle }}
.name {{ font-weight: 600; font-size: 13px }} .faint {{ fill: {FAINT}; font-size: 11px }}
path {{ fill: none; stroke: {INK}; stroke-width: 1.5; marker-end: url(#head) }}
.text {{ stroke: {TEXT_COLOUR} }} .reference {{ stroke: {REFERENCE_COLOUR} }}
text.text {{ fill: {TEXT_COLOUR}; stroke: none }} text.reference {{ fill: {REFERENCE_COLOUR}; stroke: none }}
.small {{ image-rendering: pixelated }}
"""


def middle(column: int) -> int:
    """The x of a column's middle; 0 is the reference image's."""
    return LEFT + column * PITCH + SIDE // 2


def square(side: int) -> str:
    return f"{side}{TIMES}{side}"


def label(x: float, y: float, content: str, kind: str = "") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(content)}</text>'


def arrow(kind: str, *points: tuple[float, float]) -> str:
    return f'<path class="{kind}" d="M' + " L".join(f"{x} {y}" for x, y in points) + '"/>'


def column(number: int, name: str, what: str, frames: np.ndarray) -> list[str]:
    """A column's heading and its pictures, uint8 `(N, H, W, 3)`, under one another around the middle."""
    count = len(frames)
    top = TOP + (3 - count) * (SIDE + GAP) // 2
    made = [label(middle(number), top - 26, name, "name"), label(middle(number), top - 9, what, "faint")]
    for row, frame in enumerate(frames):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "PNG", optimize=True)
        data = base64.b64encode(buffer.getvalue()).decode()
        kind = "small" if len(frame) < SIDE else ""
        place = (
            f'class="{kind}" x="{LEFT + number * PITCH}" y="{top + row * (SIDE + GAP)}" width="{SIDE}" height="{SIDE}"'
        )
        made.append(f'<image {place} href="data:image/png;base64,{data}"/>')
    return made


def draw(pictures: Mapping[str, np.ndarray], sides: list[int], factor: int) -> str:
    """The SVG.

    Args:
      pictures: by the pipeline's stages: "reference" `(H, W, 3)`; of each stage of the cascade, of "temporal" and of
        "decode" `(T, H, W, 3)`, uint8.
      sides: of the latents of the cascade's stages.
      factor: of temporal upsampling.
    """
    length = len(pictures["decode"])
    base = (length - 1) // factor + 1
    ends = [0, (base - 1) // 2, base - 1]
    at = factor * ends[1]
    row = TOP + SIDE + GAP + SIDE // 2  # the y of the middle row
    bottom = TOP + 3 * (SIDE + GAP)
    last = len(sides) - 1
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">',
        f"<title>From a sentence to a video</title><style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" style="fill: context-stroke; stroke: none; marker-end: none"/></marker></defs>',
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10" fill="#ffffff" stroke="#d0d7de"/>',
    ]
    # The sentence, its encoder, and where its states go.
    lines = textwrap.wrap(f"“{SENTENCE}”", 19)
    parts += [label(80, row + 16 * (i - (len(lines) - 1) / 2) + 4, line) for i, line in enumerate(lines)]
    rail, above = 44, row - 8 * len(lines) - 14
    parts += [
        arrow("text", (80, above), (80, rail), (middle(0) - 58, rail)),
        f'<rect x="{middle(0) - 56}" y="26" width="112" height="36" rx="6" fill="#fbefff" stroke="{TEXT_COLOUR}"/>',
        label(middle(0), rail + 4, "text encoder", "name"),
        arrow("text", (middle(0), 62), (middle(0), TOP + SIDE + GAP - 44)),
        label((middle(1) + middle(last + 1)) / 2, rail - 8, "text states", "text"),
    ]
    cascade = [middle(number) for number in range(1, last + 2)]
    parts += [arrow("text", (middle(0) + 56, rail), (x, rail), (x, 90)) for x in cascade]
    # The reference image, and where its latents go.
    parts += column(0, "reference image", "text to image, §3.1", pictures["reference"][None])
    below = bottom + 36
    start = (middle(0), TOP + 2 * SIDE + GAP + 6)
    parts += [arrow("reference", start, (middle(0), below), (x, below), (x, bottom + 2)) for x in cascade]
    scales = ", ".join(square(side) for side in sides)
    parts.append(label((middle(1) + middle(last + 1)) / 2, below + 18, f"its latents at {scales}", "reference"))
    # The cascade, the frames between, the decoder.
    for number, side in enumerate(sides, 1):
        frames = pictures[f"cascade_{side}"][ends]
        parts += column(number, f"cascade {side}", f"{base} frames, {square(side)}, §3.2", frames)
    steps = [at, at + factor // 2, at + factor]
    what = f"{length} frames, {square(sides[-1])}, §3.3"
    parts += column(last + 2, f"upsampler {TIMES}{factor}", what, pictures["temporal"][steps])
    frames = pictures["decode"][[factor * i for i in ends]]
    what = f"{length} frames, {square(frames.shape[1])}, §3.4"
    parts += column(last + 3, "video decoder", what, frames)
    edges = [(middle(i) + SIDE // 2 + 5, middle(i + 1) - SIDE // 2 - 4) for i in range(1, last + 3)]
    parts += [arrow("", (begin, row), (end, row)) for begin, end in edges]
    parts += [
        label(middle(last + 2), bottom + 14, "a frame, the one between,", "faint"),
        label(middle(last + 2), bottom + 29, "the next, by flow", "faint"),
        label(middle(last + 3), bottom + 14, "first, middle and", "faint"),
        label(middle(last + 3), bottom + 29, "last frame", "faint"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=EMBEDDED, help="model folder; the embedded model if not given")
    parser.add_argument("--output", type=Path, default=Path("docs/pipeline.svg"), help="the .svg to write")
    args = parser.parse_args()
    check_writable(args.output, (".svg",))
    pipeline, pictures = VideoGenPipeline.from_pretrained(args.model), {}

    def keep(stage: str, step: int, of: int, preview: np.ndarray | None) -> None:
        if preview is not None:
            pictures[stage] = preview[0]

    result = pipeline(SENTENCE, seed=0, callback=keep, previews=True)
    pictures["decode"] = result.frames[0]
    sides = [stage.resolution for stage in pipeline.cascade]
    args.output.write_text(draw(pictures, sides, result.recipes[0].request.temporal_factor))


if __name__ == "__main__":
    main()
