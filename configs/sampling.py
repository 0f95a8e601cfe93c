"""How the stages are sampled, for the configs of sampling and of evaluation. Imports no JAX."""

import dataclasses
import typing

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from videogen_jax.stages.settings import CASCADE_ONLY, PUBLIC_ONLY, StageSettings


def set_stage_settings(config: ConfigDict) -> None:
    """Add the sections `reference`, the stage that draws the reference image, and `cascade`, all of its resolutions.

    Their fields are those of `StageSettings`. One without a value is as in the model's `model_index.json`. The section
    `video` holds those that Stable Video Diffusion has besides.
    """
    config.reference, config.cascade, config.video = ConfigDict(), ConfigDict(), ConfigDict()
    for field in dataclasses.fields(StageSettings):
        kind = field.type if isinstance(field.type, type) else typing.get_args(field.type)[0]  # of `int | None`
        if field.name in PUBLIC_ONLY:
            config.video[field.name] = placeholder(kind)
            continue
        config.cascade[field.name] = placeholder(kind)
        if field.name not in CASCADE_ONLY:
            config.reference[field.name] = placeholder(kind)
