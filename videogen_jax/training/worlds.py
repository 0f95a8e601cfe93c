"""The worlds that training and evaluation know, one entry each."""

from videogen_jax.data.world import World
from videogen_jax.shapes.plugin import WORLD as SHAPES

WORLDS: dict[str, World] = {world.name: world for world in (SHAPES,)}
