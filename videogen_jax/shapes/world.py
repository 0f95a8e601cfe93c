"""The shapes world: captioned clips rendered from a description, at any resolution and frame rate.

Lengths are fractions of the side of the square frame, the origin is the top left corner, x to the right, y down.
A clip lasts `DURATION` seconds; frame k of n is at time 2 k / (n - 1) s. A clip's (colour, shape, motion) triple
belongs either to the training split or to the held-out split, by a checksum.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import zlib
from collections.abc import Sequence

import numpy as np

from videogen_jax.data.world import RenderedClip

DURATION = 2.0
SIZES = {"small": 0.11, "large": 0.19}
COLOURS = {
    "red": (230, 50, 50),
    "green": (50, 200, 70),
    "blue": (60, 90, 240),
    "yellow": (240, 220, 50),
    "purple": (160, 60, 200),
    "cyan": (50, 210, 220),
    "orange": (245, 140, 40),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "star")
SQUARE_HALF_SIDE = 0.85
STAR_INNER_RADIUS = 0.45

_DIAGONAL = math.sqrt(0.5)
_MOST_ATTEMPTS = 10_000  # to draw a clip whose caption has certain words
DIRECTIONS = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "up left": (-_DIAGONAL, -_DIAGONAL),
    "up right": (_DIAGONAL, -_DIAGONAL),
    "down left": (-_DIAGONAL, _DIAGONAL),
    "down right": (_DIAGONAL, _DIAGONAL),
}
SPEEDS = {"slowly": 0.25, "quickly": 0.5}  # distance travelled in the clip
GROWTH = {"growing": 2.0, "shrinking": 0.5}  # final over initial radius
CIRCLING = {"circling clockwise": 1.0, "circling counterclockwise": -1.0}  # sign of the angle, y pointing down
CIRCLING_RADIUS = 0.22
CIRCLING_TURNS = 0.75
IN_PLACE = (*GROWTH, *CIRCLING)  # as many as there are shapes
MOTION_KINDS = ("moving", *IN_PLACE)
MOTIONS = (*(f"moving {direction} {speed}" for direction in DIRECTIONS for speed in SPEEDS), *IN_PLACE)

PATTERNS = ("plain", "striped", "checkered")
PATTERN_PERIOD = 0.25
SECOND_TONE = 0.6
TONES = {  # background name -> its two tones; a plain background has the first alone
    name: (first, (45, 45, 45) if name == "black" else tuple(SECOND_TONE * value for value in first))
    for name, first in {
        "black": (10, 10, 10),
        "gray": (110, 110, 110),
        "navy": (20, 25, 80),
        "brown": (90, 60, 30),
    }.items()
}
BACKGROUNDS = tuple(tone if pattern == "plain" else f"{pattern} {tone}" for tone in TONES for pattern in PATTERNS)
SPLITS = ("train", "held_out", "all")


@dataclasses.dataclass(frozen=True)
class Attributes:
    """The attributes that a caption names. `direction` and `speed` are None unless `motion_kind` is "moving"."""

    size: str
    colour: str
    shape: str
    motion: str
    motion_kind: str
    direction: str | None
    speed: str | None
    background: str

    @property
    def tone(self) -> str:
        """The background's colour name, one of `TONES`."""
        return self.background.split()[-1]

    @property
    def pattern(self) -> str:
        """The background's pattern, one of `PATTERNS`."""
        return self.background.split()[0] if " " in self.background else "plain"

    @property
    def caption(self) -> str:
        """The caption in its canonical spelling."""
        return f"a {self.size} {self.colour} {self.shape} {self.motion} on a {self.background} background"


@dataclasses.dataclass(frozen=True)
class ShapesClip:
    """One clip, fully described.

    Attributes:
      size, colour, shape, motion, background: as in the caption ("moving up left slowly", "striped gray").
      x, y: the shape's centre at time 0, in [0, 1].
      phase: for circling motions the angle in radians, from x towards y, of the shape on its orbit at time 0; unused
        by the others.
    """

    size: str
    colour: str
    shape: str
    motion: str
    background: str
    x: float
    y: float
    phase: float = 0.0

    @property
    def caption(self) -> str:
        """The sentence that describes the clip."""
        return f"a {self.size} {self.colour} {self.shape} {self.motion} on a {self.background} background"

    def radius(self, time: np.ndarray | float) -> np.ndarray:
        """Return the radius at `time` (seconds, in [0, DURATION]), as a fraction of the frame's side."""
        progress = np.asarray(time, np.float64) / DURATION
        return SIZES[self.size] * (1.0 + (GROWTH.get(self.motion, 1.0) - 1.0) * progress)

    def centre(self, time: np.ndarray | float) -> np.ndarray:
        """Return the centre `(..., 2)` as (x, y) at `time` `(...)` seconds."""
        progress = np.asarray(time, np.float64) / DURATION
        dx, dy = np.zeros_like(progress), np.zeros_like(progress)
        if self.motion in CIRCLING:
            angle = self.phase + CIRCLING[self.motion] * CIRCLING_TURNS * 2 * np.pi * progress
            dx = CIRCLING_RADIUS * (np.cos(angle) - np.cos(self.phase))
            dy = CIRCLING_RADIUS * (np.sin(angle) - np.sin(self.phase))
        elif self.motion not in GROWTH:
            _, direction, speed = _motion_parts(self.motion)
            dx, dy = (SPEEDS[speed] * component * progress for component in DIRECTIONS[direction])
        return np.stack([self.x + dx, self.y + dy], axis=-1)


def _motion_parts(motion: str) -> tuple[str, str | None, str | None]:
    """Split a motion of `MOTIONS` into (motion kind, direction or None, speed or None)."""
    if not motion.startswith("moving "):
        return motion, None, None
    direction, speed = motion.removeprefix("moving ").rsplit(" ", 1)
    return "moving", direction, speed


def parse_caption(caption: str) -> Attributes:
    """Parse a caption of the world's grammar; case and repeated blanks do not matter.

    Raises:
      ValueError: names the first word that does not follow the grammar.
    """
    words = caption.lower().split()
    position = 0

    def take(choices: Sequence[str], what: str) -> str:
        nonlocal position
        for choice in sorted(choices, key=lambda c: -len(c.split())):  # the longest first: "up left" before "up"
            length = len(choice.split())
            if " ".join(words[position : position + length]) == choice:
                position += length
                return choice
        found = f"{words[position]!r}" if position < len(words) else "the end"
        raise ValueError(
            f"caption {caption!r}: {what} must be one of {', '.join(choices)}; found {found} at word {position + 1}"
        )

    take(["a"], "the first word")
    size = take(list(SIZES), "the size")
    colour = take(list(COLOURS), "the colour")
    shape = take(SHAPES, "the shape")
    motion = take(MOTION_KINDS, "the motion")
    if motion == "moving":
        motion = f"moving {take(list(DIRECTIONS), 'the direction')} {take(list(SPEEDS), 'the speed')}"
    take(["on a"], "the words before the background")
    background = take(BACKGROUNDS, "the background")
    take(["background"], "the last word")
    if position < len(words):
        raise ValueError(f"caption {caption!r}: {words[position]!r} follows the end of the sentence")
    kind, direction, speed = _motion_parts(motion)
    return Attributes(size, colour, shape, motion, kind, direction, speed, background)


def is_held_out(colour: str, shape: str, motion: str) -> bool:
    """Return whether the triple, its motion written as in the caption, is excluded from all training."""
    return zlib.crc32(f"{colour} {shape} {motion}".encode()) % 10 == 0


@functools.cache
def all_triples(split: str = "all") -> tuple[tuple[str, str, str], ...]:
    """Return the (colour, shape, motion) triples of a split of `SPLITS`, in a fixed order."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    triples = ((colour, shape, motion) for colour in COLOURS for shape in SHAPES for motion in MOTIONS)
    return tuple(t for t in triples if split == "all" or is_held_out(*t) == (split == "held_out"))


def _place(size: str, colour: str, shape: str, motion: str, background: str, rng: np.random.Generator) -> ShapesClip:
    """Draw the start such that the disc around the shape stays inside the frame throughout."""
    u, v, phase = rng.random(3)
    clip = ShapesClip(size, colour, shape, motion, background, 0.0, 0.0, 2 * math.pi * phase)
    if motion in CIRCLING:  # the orbit's centre is drawn, so that the start is a point at `phase` on the orbit
        low = np.full(2, SIZES[size] + CIRCLING_RADIUS)
        offset = CIRCLING_RADIUS * np.array([math.cos(clip.phase), math.sin(clip.phase)])
        x, y = low + (1 - 2 * low) * np.array([u, v]) + offset
    else:
        ends = clip.centre(np.array([0.0, DURATION]))
        margin = clip.radius(np.array([0.0, DURATION])).max()
        low, high = margin - ends.min(axis=0), 1 - margin - ends.max(axis=0)
        x, y = low + (high - low) * np.array([u, v])
    return dataclasses.replace(clip, x=float(x), y=float(y), phase=clip.phase if motion in CIRCLING else 0.0)


def _generator(*entropy: int) -> np.random.Generator:
    if any(value < 0 for value in entropy):
        raise ValueError(f"seed and index must not be negative; got {entropy}")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def sample_clip(seed: int, index: int, split: str = "train", emphasis: Sequence[str] = ()) -> ShapesClip:
    """Draw clip number `index` of the stream `seed`: a function of its arguments alone.

    Uniform over the split's triples, the sizes, the backgrounds and the positions where the shape stays inside.

    Args:
      emphasis: words that the captions of every second clip contain, all of them; these clips are uniform over those
        whose captions contain them.

    Raises:
      ValueError: there is no such split, or no caption of it has these words.
    """
    if not emphasis or index % 2 == 0:
        return _draw(_generator(seed, index), split)
    for attempt in range(_MOST_ATTEMPTS):
        clip = _draw(_generator(seed, index, attempt), split)
        if set(emphasis) <= set(clip.caption.split()):
            return clip
    raise ValueError(f"no caption of {_MOST_ATTEMPTS:,} clips of the {split} split has the words {' '.join(emphasis)}")


def _draw(rng: np.random.Generator, split: str) -> ShapesClip:
    triples = all_triples(split)
    triple, size, background = rng.integers([len(triples), len(SIZES), len(BACKGROUNDS)])
    return _place(list(SIZES)[size], *triples[triple], BACKGROUNDS[background], rng)


def similar_clips(seed: int, index: int, split: str, attribute: str) -> list[ShapesClip]:
    """Draw clip number `index` of the stream `seed` with each of the `SHAPES`, or each of the motions `IN_PLACE`.

    Where a variant belongs to another split, the clip as drawn takes its place. Clips of different motions start at
    different positions, since they depend on where the shape stays inside the frame; the two senses of circling start
    at the same.

    Args:
      attribute: "shape" or "motion".
    """
    drawn = sample_clip(seed, index, split)
    if attribute == "shape":
        clips = [dataclasses.replace(drawn, shape=shape) for shape in SHAPES]
    elif attribute == "motion":
        subject = drawn.size, drawn.colour, drawn.shape
        clips = [_place(*subject, motion, drawn.background, _generator(seed, index, 0)) for motion in IN_PLACE]
    else:
        raise ValueError(f"attribute must be shape or motion; got {attribute!r}")
    allowed = all_triples(split)
    return [clip if (clip.colour, clip.shape, clip.motion) in allowed else drawn for clip in clips]


def frame_times(num_frames: int) -> np.ndarray:
    """Return the times `(num_frames,)` of a clip's frames in seconds, from 0 to DURATION, both included."""
    if num_frames < 2:
        raise ValueError(f"num_frames must be at least 2; got {num_frames}")
    return DURATION * np.arange(num_frames) / (num_frames - 1)


def render_background(background: str, resolution: int) -> np.ndarray:
    """Render a background, `(R, R, 3)` float64 in [0, 255], each pixel the exact mean over its area."""
    attributes = background.split()
    first, second = (np.asarray(tone, np.float64) for tone in TONES[attributes[-1]])
    edges = np.arange(resolution + 1) / resolution
    # Integral from 0 to `edges` of the square wave that is 0 in the first half of a period and 1 in the second.
    periods, rest = np.divmod(edges, PATTERN_PERIOD)
    integral = periods * PATTERN_PERIOD / 2 + np.maximum(rest - PATTERN_PERIOD / 2, 0.0)
    bars = np.diff(integral) * resolution
    across, down = bars[None, :], bars[:, None]
    if len(attributes) == 1:
        share = np.zeros((resolution, resolution))
    elif attributes[0] == "striped":
        share = np.broadcast_to(across, (resolution, resolution))
    else:
        share = across + down - 2 * across * down
    return first + share[..., None] * (second - first)


@functools.cache
def _outline(shape: str) -> np.ndarray:
    """Return the corners `(N, 2)` of a polygonal shape of radius 1 about the origin, in order."""
    if shape == "square":
        return SQUARE_HALF_SIDE * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    count = 3 if shape == "triangle" else 10
    angle = -np.pi / 2 + 2 * np.pi * np.arange(count) / count
    radius = np.where((np.arange(count) % 2 == 1) & (shape == "star"), STAR_INNER_RADIUS, 1.0)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


_CIRCLE_ARCS = 48  # half a circle is cut into this many chords, besides the cuts at the rows of pixels


def shape_coverage(shape: str, x: float, y: float, radius: float, resolution: int) -> tuple[int, int, np.ndarray]:
    """Compute the share of each pixel's area that a shape covers.

    Exact for polygons: within a row of pixels, an edge that crosses it from (xa, ya) to (xb, yb) bounds an area that is
    integrated in closed form.

    Returns: (top, left, coverage), the coverage `(h, w)` float64 in [0, 1] of the block of pixels that begins at
      (top, left); the pixels outside of the block are uncovered.
    """
    cx, cy, r = x * resolution, y * resolution, radius * resolution
    left, right = max(math.floor(cx - r), 0), min(math.ceil(cx + r), resolution)
    top, bottom = max(math.floor(cy - r), 0), min(math.ceil(cy + r), resolution)
    if right <= left or bottom <= top:
        return 0, 0, np.zeros((0, 0))
    rows = np.arange(top, bottom)
    if shape == "circle":
        arcs = cy - r * np.cos(np.pi * np.arange(_CIRCLE_ARCS + 1) / _CIRCLE_ARCS)
        y_cut = np.clip(
            np.sort(np.concatenate([arcs, np.arange(top, bottom + 1)])), max(cy - r, top), min(cy + r, bottom)
        )
        half = np.sqrt(np.maximum(r * r - (y_cut - cy) ** 2, 0.0))
        height = np.diff(y_cut)[:, None] * np.array([1.0, -1.0])  # entering on the left, leaving on the right
        x_start = np.stack([cx - half[:-1], cx + half[:-1]], axis=1)
        x_end = np.stack([cx - half[1:], cx + half[1:]], axis=1)
        row_of = np.clip(((y_cut[1:] + y_cut[:-1]) / 2).astype(np.int64), top, bottom - 1)
    else:
        corners = _outline(shape) * r + (cx, cy)
        begin, run = corners, np.roll(corners, -1, axis=0) - corners
        sign = -np.sign(run[:, 1])  # corners go clockwise on the screen: an edge going up is a left side
        low, high = np.minimum(begin[:, 1], begin[:, 1] + run[:, 1]), np.maximum(begin[:, 1], begin[:, 1] + run[:, 1])
        slope = run[:, 0] / np.where(run[:, 1] == 0, 1.0, run[:, 1])
        y_start, y_end = np.clip(rows[:, None], low, high), np.clip(rows[:, None] + 1, low, high)
        height = (y_end - y_start) * sign
        x_start, x_end = (begin[:, 0] + slope * (cut - begin[:, 1]) for cut in (y_start, y_end))
        row_of = rows
    used = height != 0
    height, x_start, x_end = height[used], x_start[used], x_end[used]
    row_of = np.broadcast_to(row_of[:, None], used.shape)[used] - top
    coverage = np.zeros((bottom - top, right - left))
    if row_of.size == 0:
        return top, left, coverage
    # A piece with end points xa, xb covers of pixel [i, i+1] the mean over x in [xa, xb] of clip(i + 1 - x, 0, 1).
    flat = np.abs(x_end - x_start) < 1e-6
    x_end = np.where(flat, x_start + 1e-6, x_end)
    pixel_ends = np.arange(left + 1, right + 1)
    area = _ramp_integral(pixel_ends - x_start[:, None]) - _ramp_integral(pixel_ends - x_end[:, None])
    area *= (height / (x_end - x_start))[:, None]
    first = np.flatnonzero(np.diff(row_of, prepend=-1))
    coverage[row_of[first]] = np.add.reduceat(area, first, axis=0)
    return top, left, np.clip(coverage, 0.0, 1.0)


def _ramp_integral(u: np.ndarray) -> np.ndarray:
    """Integrate clip(u, 0, 1) from 0 to u."""
    ramp = np.clip(u, 0.0, 1.0)
    return ramp * (0.5 * ramp) + np.maximum(u - 1.0, 0.0)


def render(clip: ShapesClip, times: Sequence[float] | np.ndarray, resolution: int) -> np.ndarray:
    """Render a clip at `times` `(T,)` in seconds: uint8 `(T, R, R, 3)`, sRGB, R = resolution."""
    if resolution < 1:
        raise ValueError(f"resolution must be at least 1; got {resolution}")
    times = np.asarray(times, np.float64)
    background = render_background(clip.background, resolution)
    frames = np.repeat(np.rint(background).astype(np.uint8)[None], len(times), axis=0)
    colour = np.asarray(COLOURS[clip.colour], np.float64)
    for frame, (x, y), radius in zip(frames, clip.centre(times), clip.radius(times), strict=True):
        top, left, coverage = shape_coverage(clip.shape, x, y, radius, resolution)
        block = (slice(top, top + coverage.shape[0]), slice(left, left + coverage.shape[1]))
        mixed = background[block] + coverage[..., None] * (colour - background[block])
        frame[block] = np.rint(mixed).astype(np.uint8)
    return frames


def render_clip(seed: int, index: int, split: str, num_frames: int, resolution: int) -> RenderedClip:
    """Render all frames of clip number `index` of `sample_clip`'s stream."""
    clip = sample_clip(seed, index, split)
    return RenderedClip(clip.caption, render(clip, frame_times(num_frames), resolution))


class ShapesSource:
    """Clips of the shapes world as a grain random-access source, each a function of (seed, index).

    An element is {"video": uint8 (num_frames, resolution, resolution, 3), "caption": str, "fps": float32}, where
    fps is (num_frames - 1) / DURATION.

    Args:
      split: one of `SPLITS`.
      seed: at least 0.
      num_clips: length of the source.
      num_frames: at least 2.
      resolution: side of the square frames in pixels, at least 8.
    """

    def __init__(self, split: str, seed: int, num_clips: int, num_frames: int, resolution: int):
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
        for name, value, least in (
            ("seed", seed, 0),
            ("num_clips", num_clips, 1),
            ("num_frames", num_frames, 2),
            ("resolution", resolution, 8),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}")
        self.split, self.seed, self.num_clips = split, seed, num_clips
        self.num_frames, self.resolution = num_frames, resolution

    def __len__(self) -> int:
        return self.num_clips

    def clip(self, index: int) -> ShapesClip:
        """Return the description of element `index`; negative indices count from the end. IndexError: outside."""
        index = operator.index(index)
        if not -self.num_clips <= index < self.num_clips:
            raise IndexError(f"index {index} is outside of a source of {self.num_clips} clips")
        return sample_clip(self.seed, index % self.num_clips, self.split)

    def __getitem__(self, index: int) -> dict[str, np.ndarray | str | np.float32]:
        clip = self.clip(index)
        return {
            "video": render(clip, frame_times(self.num_frames), self.resolution),
            "caption": clip.caption,
            "fps": np.float32((self.num_frames - 1) / DURATION),
        }

    def __repr__(self) -> str:  # grain compares it when it restores an iterator
        return (
            f"ShapesSource(split={self.split!r}, seed={self.seed}, num_clips={self.num_clips}, "
            f"num_frames={self.num_frames}, resolution={self.resolution})"
        )
