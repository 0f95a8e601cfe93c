"""How the stages are sampled, for the configs of sampling and of evaluation. Imports no JAX."""

import dataclasses
import typing

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from videogen_jax.stages.settings import CASCADE_ONLY, PUBLIC_ONLY, UPPER_ONLY, StageSettings


def set_stage_settings(config: ConfigDict) -> None:
    """Add the sections `reference`, the stage that draws the reference image, and `cascade`, all of its resolutions.

    Their fields are those of `StageSettings`. One without a value is as in the model's `model_index.json`. The section
    `video` holds those that public video models have besides, `upper` those of the stage of an `upper_model`.
    """
    for section in ("reference", "cascade", "video", "upper"):
        config[section] = ConfigDict()
    for field in dataclasses.fields(StageSettings):
        kind = field.type if isinstance(field.type, type) else typing.get_args(field.type)[0]  # of `int | None`
        kind = typing.get_origin(kind) or kind
        if field.name in UPPER_ONLY:
            config.upper[field.name] = placeholder(kind)
            continue
        if field.name in PUBLIC_ONLY:
            config.video[field.name] = placeholder(kind)
            continue
        config.cascade[field.name] = placeholder(kind)
        if field.name not in CASCADE_ONLY:
            config.upper[field.name] = placeholder(kind)
        if field.name not in CASCADE_ONLY:
            config.reference[field.name] = placeholder(kind)
