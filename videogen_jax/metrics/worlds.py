"""The worlds whose models can be evaluated, found in the registry of worlds."""

from typing import Any

from videogen_jax.data.world import World
from videogen_jax.training.worlds import WORLDS

EVALUATED_WORLDS = {name: world for name, world in WORLDS.items() if world.evaluation is not None}
WORLD_NAMES = " or ".join(f"the {name} world" for name in EVALUATED_WORLDS)  # for messages


def world_of(config: Any) -> World | None:
    """Return the world of an evaluation's config; None for captions of real videos.

    Without `config.captions` it is the world that `config.world` names, by default the first in the registry.

    Raises:
      ValueError: there is no such world, or its models cannot be evaluated.
    """
    if "captions" in config:
        return None
    name = config.get("world", next(iter(EVALUATED_WORLDS)))
    if name not in EVALUATED_WORLDS:
        raise ValueError(f"config.world is {name!r}, but must be one of {', '.join(EVALUATED_WORLDS)}")
    return EVALUATED_WORLDS[name]
