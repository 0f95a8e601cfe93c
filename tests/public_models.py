"""Tiny networks of diffusers with random weights, and pictures to animate, for tests of public video models."""

import numpy as np
import torch


def randomize(network: torch.nn.Module) -> torch.nn.Module:
    """Random parameters, none of them at zero: zeros hide layers."""
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.8 / np.sqrt(parameter[0].numel()))
        else:
            torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.2)
    return network.eval()


def pictures(size: tuple[int, int]) -> list[np.ndarray]:
    """Two images uint8 `(*size, 3)`, smooth and unlike each other."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    planes = [np.stack([rows * 3, columns + 60 * k, 128 + 100 * np.sin(rows / 9 + k)], axis=-1) for k in range(2)]
    return [plane.astype(np.uint8) for plane in planes]


def gaussian_noise(*shape: int, seed: int = 3) -> np.ndarray:
    """Standard normal float32, as `latents=` takes it."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
