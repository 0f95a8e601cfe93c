"""The paper's parts, one file each, behind one small face (see stages/stage.py)."""

from videogen_jax.shapes.classifier import ClassifierStage
from videogen_jax.stages.autoencoder import AutoencoderStage
from videogen_jax.stages.cascade import CascadeStage
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.stages.reference import ReferenceStage
from videogen_jax.stages.stage import Stage, build_network
from videogen_jax.stages.temporal import TemporalStage
from videogen_jax.stages.text import TextStage

STAGES: dict[str, type[Stage]] = {
    "text": TextStage,
    "autoencoder": AutoencoderStage,
    "reference": ReferenceStage,
    "cascade": CascadeStage,
    "temporal": TemporalStage,
    "decoder": DecoderStage,
    "classifier": ClassifierStage,
}

__all__ = ["STAGES", "Stage", "build_network", "build_stage"]


def build_stage(name: str, settings: dict) -> Stage:
    """The stage called `name` with the fields of a config's `model` section.

    Raises:
      ValueError: naming the unknown stage or the unknown or missing field.
    """
    if name not in STAGES:
        raise ValueError(f"config.stage is {name!r}; the stages are {', '.join(STAGES)}")
    return build_network(STAGES[name], settings, f"config.model of stage {name}")
