"""Clips of the shapes world by their captions."""

from videogen_jax.shapes import world


def clip_from_caption(caption: str, seed: int = 0) -> world.ShapesClip:
    """Return a clip that shows what the caption says, its start drawn by the seed."""
    parsed = world.parse_caption(caption)
    words = parsed.size, parsed.colour, parsed.shape, parsed.motion, parsed.background
    return world._place(*words, world._generator(seed))
