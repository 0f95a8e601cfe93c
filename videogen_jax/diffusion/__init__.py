"""Diffusion: schedules, prediction types, guidance, samplers, noise augmentation. Knows no network."""
