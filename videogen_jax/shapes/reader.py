"""The reader of the shapes world: recognises the attributes of a clip in its pixels, by classical image processing.

The known backgrounds are fitted to the frames; what differs from the best one and has one of the known colours is the
shape; radius, growth and path follow from its area and centroid in each frame; its mask is compared with the four
outlines. The actual colour and tones are estimated before the shape is segmented, and areas are sums of fractional
coverage, so that wrong tints, noise and soft edges of generated videos do little harm.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import ndimage

from videogen_jax.shapes import world

# All colour distances are Euclidean, on the scale of 0 to 255 per channel.
_FOREGROUND_DISTANCE = 60.0  # the closest pair of a colour and a tone, green on gray, is 115 apart
_COLOUR_DISTANCE = 90.0
_TONE_DISTANCE = 60.0
_LEAST_AREA = 0.0015  # of the frame; the smallest shape, a small star at the end of its shrinking, has 0.004
_PATH_SCALE = 0.02  # of the frame's side: a centroid farther off a path than this counts as an outlier
_LEAST_OVERLAP = 0.6  # intersection over union with the best outline, below which it is none of the shapes
_LEAST_TRAVEL = 0.1  # of the frame's side: a path shorter than this is no motion
_UNIT_AREAS = {  # area of each shape of radius 1
    "circle": math.pi,
    "square": 4 * world.SQUARE_HALF_SIDE**2,
    "triangle": 3 * math.sqrt(3) / 4,
    "star": 5 * world.STAR_INNER_RADIUS * math.sin(math.pi / 5),
}
_MAX_RESOLUTION = 128
LEAST_FRAMES = 4
ATTRIBUTES = ("colour", "background", "size", "shape", "motion_kind", "direction", "speed")
IMAGE_ATTRIBUTES = ("colour", "background", "size", "shape")  # those that a still image shows
VALUES = {  # of each attribute
    "colour": tuple(world.COLOURS),
    "background": world.BACKGROUNDS,
    "size": tuple(world.SIZES),
    "shape": world.SHAPES,
    "motion_kind": world.MOTION_KINDS,
    "direction": tuple(world.DIRECTIONS),
    "speed": tuple(world.SPEEDS),
}


@dataclasses.dataclass(frozen=True)
class Reading:
    """What is recognised in a clip; None where nothing is, or where the motion has no such attribute.

    Attributes:
      size, colour, shape, motion_kind, direction, speed, background: as in `world.Attributes`.
      radii, centres: of the shape in each frame, `(T,)` and `(T, 2)`, as fractions of the frame's side; NaN in frames
        without a shape.
    """

    size: str | None
    colour: str | None
    shape: str | None
    motion_kind: str | None
    direction: str | None
    speed: str | None
    background: str
    radii: np.ndarray = dataclasses.field(repr=False, compare=False)
    centres: np.ndarray = dataclasses.field(repr=False, compare=False)

    @property
    def values(self) -> dict[str, str | None]:
        """The value of each of `ATTRIBUTES`."""
        return {name: getattr(self, name) for name in ATTRIBUTES}


def _prepare(frames: np.ndarray) -> np.ndarray:
    """Check frames, and average them down to at most `_MAX_RESOLUTION` where that divides evenly: float32."""
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.shape[1] != frames.shape[2] or frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 of shape (T, R, R, 3); got {frames.dtype} of shape {frames.shape}")
    count, resolution = frames.shape[:2]
    if count < LEAST_FRAMES or resolution < 16:
        raise ValueError(
            f"frames must be at least {LEAST_FRAMES} of at least 16x16 pixels; got {count} of {resolution}x{resolution}"
        )
    factor = resolution // _MAX_RESOLUTION
    if factor > 1 and resolution % factor == 0:
        small = resolution // factor
        return frames.reshape(count, small, factor, small, factor, 3).mean(axis=(2, 4), dtype=np.float32)
    return frames.astype(np.float32)


@functools.cache
def _known_backgrounds(resolution: int) -> np.ndarray:
    """Render all backgrounds, `(12, R, R, 3)` float32, in the order of `world.BACKGROUNDS`."""
    return np.stack([world.render_background(name, resolution) for name in world.BACKGROUNDS]).astype(np.float32)


def _truncated(difference: np.ndarray) -> np.ndarray:
    """Compute the squared length over the last axis, at most `_TONE_DISTANCE`'s square."""
    return np.minimum(np.einsum("...c,...c->...", difference, difference), _TONE_DISTANCE**2)


def _fit_background(video: np.ndarray) -> tuple[str, np.ndarray]:
    """Find the best of the known backgrounds by truncated squared error.

    Args:
      video: `(T, R, R, 3)` float32.

    Returns: its name, and its image `(R, R, 3)` float32 with the tones as they are in the video.
    """
    resolution = video.shape[1]
    sample = video[[0, len(video) // 2, len(video) - 1]]
    known = _known_backgrounds(resolution)
    step = max(resolution // 32, 1)  # four samples to a bar, none at its edges, show a background well
    coarse = sample[:, None, step // 2 :: step, step // 2 :: step] - known[:, step // 2 :: step, step // 2 :: step]
    error = _truncated(coarse).mean(axis=(0, 2, 3))
    tone = world.BACKGROUNDS[int(error.argmin())].split()[-1]
    # A tint of the whole frame must not be taken for a pattern: the patterns of the tone are compared again, each with
    # the shift of colour that fits it best.
    indices = [k for k, name in enumerate(world.BACKGROUNDS) if name.split()[-1] == tone]
    coarse = coarse[:, indices]
    near = (np.einsum("tkhwc,tkhwc->tkhw", coarse, coarse) < _TONE_DISTANCE**2)[..., None]
    shift = (coarse * near).sum(axis=(0, 2, 3)) / np.maximum(near.sum(axis=(0, 2, 3)), 1)
    best = indices[int(_truncated(coarse - shift[:, None, None]).mean(axis=(0, 2, 3)).argmin())]
    name, image = world.BACKGROUNDS[best], known[best].copy()
    difference = sample - image
    near = np.einsum("thwc,thwc->thw", difference, difference) < _TONE_DISTANCE**2
    dark = np.abs(image - image[0, 0]).max(axis=-1) > 1  # the second tone, if any: the first is in the corner
    for tone in (dark, ~dark):
        chosen = near & tone
        if chosen.sum() > 0.02 * chosen.size:
            image[tone] += np.median(difference[chosen], axis=0)
    return name, image


def _fit_colour(distance: np.ndarray, video: np.ndarray) -> tuple[str, np.ndarray] | None:
    """Find the name of the shape's colour and its actual colour `(3,)`, by a vote of the foreground pixels."""
    pixels = video[distance > _FOREGROUND_DISTANCE**2]
    if len(pixels) < _LEAST_AREA * distance.size:
        return None
    pixels = pixels[:: max(len(pixels) // 4000, 1)]
    gaps = ((pixels[:, None] - np.array(list(world.COLOURS.values()), np.float32)) ** 2).sum(axis=-1)
    nearest = gaps.argmin(axis=1)
    nearest[gaps.min(axis=1) > _COLOUR_DISTANCE**2] = len(world.COLOURS)
    votes = np.bincount(nearest, minlength=len(world.COLOURS) + 1)[: len(world.COLOURS)]
    if votes.max() == 0:
        return None
    winner = int(votes.argmax())
    return list(world.COLOURS)[winner], np.median(pixels[nearest == winner], axis=0)


@dataclasses.dataclass(frozen=True)
class _Blob:
    """The largest foreground component of a frame: coverage (h, w) of a block at (top, left), area and centre."""

    coverage: np.ndarray
    top: int
    left: int
    area: float  # pixels
    x: float  # pixels
    y: float


def _largest_blob(coverage: np.ndarray, mask: np.ndarray) -> _Blob | None:
    """Find the largest connected component of `mask` `(R, R)`, its area and centre weighted by `coverage` `(R, R)`."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return None
    largest = int(np.bincount(labels.ravel())[1:].argmax()) + 1
    rows, columns = ndimage.find_objects(labels, max_label=largest)[largest - 1]
    top, left = max(rows.start - 3, 0), max(columns.start - 3, 0)
    block = (slice(top, rows.stop + 3), slice(left, columns.stop + 3))
    inside = ndimage.binary_dilation(labels[block] == largest, iterations=2)  # takes in the soft edge
    weights = np.where(inside, coverage[block], 0.0)
    area = float(weights.sum())
    if area < _LEAST_AREA * mask.size:
        return None
    y = top + 0.5 + float(weights.sum(axis=1) @ np.arange(weights.shape[0])) / area
    x = left + 0.5 + float(weights.sum(axis=0) @ np.arange(weights.shape[1])) / area
    return _Blob(weights, top, left, area, x, y)


def _overlap(blob: _Blob, shape: str, resolution: int) -> float:
    """Compute the intersection over union of a blob and a shape of the same area and centre."""
    radius = math.sqrt(blob.area / _UNIT_AREAS[shape])
    top, left, template = world.shape_coverage(
        shape, blob.x / resolution, blob.y / resolution, radius / resolution, resolution
    )
    h, w = blob.coverage.shape
    rows = slice(max(top, blob.top), min(top + template.shape[0], blob.top + h))
    columns = slice(max(left, blob.left), min(left + template.shape[1], blob.left + w))
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return 0.0
    of_blob = blob.coverage[
        rows.start - blob.top : rows.stop - blob.top, columns.start - blob.left : columns.stop - blob.left
    ]
    of_shape = template[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    intersection = float(np.minimum(np.clip(of_blob, 0.0, 1.0), of_shape).sum())
    return intersection / (float(np.clip(blob.coverage, 0.0, 1.0).sum()) + float(template.sum()) - intersection)


def _robust_fit(design: np.ndarray, target: np.ndarray, scale: float) -> tuple[np.ndarray, float]:
    """Fit a linear model by least squares with Cauchy weights.

    Args:
      design: `(N, D, P)`, D equations for each of N frames, which share a weight.
      target: `(N, D)`.
      scale: of the Cauchy distribution, in units of the target.

    Returns: parameters `(P,)`, and the negative Cauchy log likelihood per frame.
    """
    weights = np.ones(len(target))
    for _ in range(6):
        root = np.sqrt(weights)
        parameters = np.linalg.lstsq(
            (design * root[:, None, None]).reshape(-1, design.shape[-1]), (target * root[:, None]).ravel(), rcond=None
        )[0]
        squared = ((design @ parameters - target) ** 2).sum(axis=-1) / scale**2
        weights = 1 / (1 + squared)
    return parameters, float(np.log1p(squared).mean())


def _read_path(progress: np.ndarray, centres: np.ndarray) -> tuple[str | None, str | None, str | None]:
    """Find motion kind, direction and speed of a shape whose radius does not change.

    A straight line and the two senses of circling, of four parameters each, are fitted, and the best is taken.

    Args:
      progress: `(N,)`, time as a fraction of the clip.
      centres: `(N, 2)`.
    """
    one, zero = np.ones_like(progress), np.zeros_like(progress)
    designs = {"moving": np.stack([[one, zero, progress, zero], [zero, one, zero, progress]])}
    for kind, sense in world.CIRCLING.items():
        angle = sense * world.CIRCLING_TURNS * 2 * np.pi * progress
        cos, sin = np.cos(angle), np.sin(angle)
        designs[kind] = np.stack([[one, zero, cos, -sin], [zero, one, sin, cos]])
    fits = {kind: _robust_fit(design.transpose(2, 0, 1), centres, _PATH_SCALE) for kind, design in designs.items()}
    kind = min(fits, key=lambda k: fits[k][1])
    vector = fits[kind][0][2:]
    length = float(np.hypot(*vector))
    if kind != "moving":
        travel = length * world.CIRCLING_TURNS * 2 * math.pi
        return (kind if travel >= 2 * _LEAST_TRAVEL else None), None, None
    if length < _LEAST_TRAVEL:
        return None, None, None
    direction = max(world.DIRECTIONS, key=lambda name: float(vector @ np.array(world.DIRECTIONS[name])))
    slow, quick = world.SPEEDS["slowly"], world.SPEEDS["quickly"]
    return kind, direction, "slowly" if length < math.sqrt(slow * quick) else "quickly"


def read_clip(frames: np.ndarray) -> Reading:
    """Read the attributes of a clip that lasts the world's two seconds.

    Args:
      frames: uint8 `(T, R, R, 3)`, T at least 4, R at least 16.

    Returns: the reading, with the best of the known backgrounds in any case; everything else is None unless a shape is
      found in at least half of the frames.

    Raises:
      ValueError: frames of another shape or type.
    """
    video = _prepare(frames)
    count, resolution = video.shape[:2]
    radii, centres = np.full(count, np.nan), np.full((count, 2), np.nan)
    background, image = _fit_background(video)
    nothing = Reading(None, None, None, None, None, None, background, radii, centres)

    difference = video - image
    distance = np.einsum("thwc,thwc->thw", difference, difference)
    found = _fit_colour(distance, video)
    if found is None:
        return nothing
    colour, tint = found
    # A pixel of coverage a is image + a (tint - image), plus what belongs to neither.
    contrast = tint - image
    norm = np.einsum("hwc,hwc->hw", contrast, contrast)
    coverage = np.einsum("thwc,hwc->thw", difference, contrast / norm[..., None])
    mask = (coverage > 0.5) & (distance - coverage**2 * norm < 0.25 * norm)
    blobs = {k: blob for k in range(count) if (blob := _largest_blob(coverage[k], mask[k])) is not None}
    if len(blobs) < max(4, count / 2):
        return nothing

    largest_first = sorted(blobs.values(), key=lambda blob: -blob.area)[:6]
    overlaps = {
        name: float(np.mean([_overlap(blob, name, resolution) for blob in largest_first])) for name in world.SHAPES
    }
    outline = max(overlaps, key=overlaps.get)
    shape = outline if overlaps[outline] >= _LEAST_OVERLAP else None
    for k, blob in blobs.items():
        radii[k] = math.sqrt(blob.area / _UNIT_AREAS[outline]) / resolution
        centres[k] = blob.x / resolution, blob.y / resolution
    visible = np.array(list(blobs))
    progress = visible / (count - 1)

    line = np.stack([np.ones_like(progress), progress], axis=-1)[:, None]
    (start, slope), _ = _robust_fit(line, radii[visible, None], _PATH_SCALE)
    ratio = (start + slope) / start if start > 0 else 1.0
    direction = speed = None
    if ratio > math.sqrt(world.GROWTH["growing"]):
        kind = "growing"
    elif ratio < math.sqrt(world.GROWTH["shrinking"]):
        kind = "shrinking"
    else:
        kind, direction, speed = _read_path(progress, centres[visible])
    # The size is that of the first frame, to which all frames contribute once the growth is divided out.
    initial = np.median(radii[visible] / (1 + (world.GROWTH.get(kind, 1.0) - 1) * progress))
    size = "small" if initial < math.sqrt(world.SIZES["small"] * world.SIZES["large"]) else "large"
    return Reading(size, colour, shape, kind, direction, speed, background, radii, centres)


def score(frames: np.ndarray, caption: str) -> dict[str, bool]:
    """Read a clip, uint8 `(T, R, R, 3)`, and compare it with its caption; see `compare`.

    The background is right when tone and pattern are.
    """
    return compare(read_clip(frames), caption)


def read_image(image: np.ndarray) -> Reading:
    """Read the attributes of a still image, the first frame of a clip; those of motion are None.

    Args:
      image: uint8 `(R, R, 3)`, R at least 16.

    Raises:
      ValueError: an image of another shape or type.
    """
    image = np.asarray(image)
    if image.ndim != 3:
        raise ValueError(f"image must be uint8 of shape (R, R, 3); got {image.dtype} of shape {image.shape}")
    return read_clip(np.repeat(image[None], LEAST_FRAMES, axis=0))  # a clip in which nothing moves


def parse_values(caption: str) -> dict[str, str | None]:
    """Return the value of each of `ATTRIBUTES` in a caption, None where it has none; raises as `parse_caption`."""
    attributes = world.parse_caption(caption)
    return {name: getattr(attributes, name) for name in ATTRIBUTES}


def compare(reading: Reading, caption: str, attributes: Sequence[str] = ATTRIBUTES) -> dict[str, bool]:
    """Return for each of the attributes that a caption names whether the reading agrees with it.

    Raises:
      ValueError: the caption is outside of the grammar.
    """
    expected = parse_values(caption)
    return {name: reading.values[name] == expected[name] for name in attributes if expected[name] is not None}


def summarize(scores: Iterable[Mapping[str, bool]]) -> dict[str, float]:
    """Return the fraction of clips with each attribute right, of those that have it, and with `all` of theirs right."""
    scores = list(scores)
    if not scores:
        raise ValueError("scores must hold at least one clip's score")
    result = {}
    for name in ATTRIBUTES:
        values = [clip[name] for clip in scores if name in clip]
        if values:
            result[name] = float(np.mean(values))
    result["all"] = float(np.mean([all(clip.values()) for clip in scores]))
    return result
