"""Diffusion: schedules, prediction types, guidance, samplers, noise augmentation. Knows no network."""

from videogen_jax.diffusion.augmentation import augment, random_level
from videogen_jax.diffusion.guidance import classifier_free, rescale, text_and_reference
from videogen_jax.diffusion.predictions import eps_from_prediction, loss_weight, target, x0_from_prediction
from videogen_jax.diffusion.samplers import Sampler, SamplerState, sample, timesteps_for
from videogen_jax.diffusion.schedules import NoiseSchedule, make_schedule

__all__ = [
    "NoiseSchedule",
    "Sampler",
    "SamplerState",
    "augment",
    "classifier_free",
    "eps_from_prediction",
    "loss_weight",
    "make_schedule",
    "random_level",
    "rescale",
    "sample",
    "target",
    "text_and_reference",
    "timesteps_for",
    "x0_from_prediction",
]
