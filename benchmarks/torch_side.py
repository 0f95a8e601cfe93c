"""What the benchmarks need of PyTorch's side."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(run: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions of one run.

    Attention is counted by its two products, since the counter leaves out the fused kernel that a CPU takes.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


def step_of(model: torch.nn.Module, arguments: tuple, backward: bool) -> Callable[[], Any]:
    """One forward pass of a denoising network, or one forward and backward pass of the mean square of its output."""

    def forward_pass():
        with torch.no_grad():
            return model(*arguments).sample

    def backward_pass():
        model.zero_grad()
        model(*arguments).sample.square().mean().backward()

    return backward_pass if backward else forward_pass


def channels_last(model: torch.nn.Module) -> torch.nn.Module:
    """The model with the weights of its convolutions in channels last, PyTorch's better format on a CPU."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=formats[module.weight.ndim])
    return model
