"""Random weights for PyTorch networks that keep the size of what passes through, with batch norms that do something."""

import torch


def randomize(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Draws all tensors of a network, in place, and puts it in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor, low, high):
        tensor.data.uniform_(low, high, generator=generator)

    for layer in module.modules():
        if isinstance(layer, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            draw(layer.weight, 0.8, 1.2)
            draw(layer.bias, -0.2, 0.2)
            draw(layer.running_mean, -0.2, 0.2)
            draw(layer.running_var, 0.5, 1.5)
        elif isinstance(layer, (torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Linear)):
            bound = (6 / layer.weight[0].numel()) ** 0.5
            draw(layer.weight, -bound, bound)
            if layer.bias is not None:
                draw(layer.bias, -0.1, 0.1)
    return module.eval()


def tensors(module: torch.nn.Module) -> dict:
    """The state dict as host arrays."""
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}
