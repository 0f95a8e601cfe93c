"""A world: a data set that is rendered by code, with sources, stages and measures of its own."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class World:
    """A plug-in beside the corpora of video files. `training/worlds.py` lists all worlds.

    Attributes:
      name: of the world.
      sources: `config.data.source` -> builder of the training examples. It is called with the config, the
        `ModelFolder` of `config.model_folder`, and by keyword the other fields of `config.data`.
      stages: `config.stage` -> stages that are trained on this world alone, beside the paper's.
    """

    name: str
    sources: Mapping[str, Callable[..., Any]]
    stages: Mapping[str, type] = dataclasses.field(default_factory=dict)
