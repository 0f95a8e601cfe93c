"""AdamW with warm-up and cosine decay, gradient clipping and masks."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from videogen_jax.training.mesh import path_name


def learning_rate_schedule(config: Mapping[str, Any], steps: int) -> optax.Schedule:
    """Linear warm-up over `warmup_steps`, then a cosine down to `final_fraction` of the peak at `steps`."""
    warmup = int(config["warmup_steps"])
    if not 0 <= warmup < steps:
        raise ValueError(f"config.optimizer.warmup_steps is {warmup}; it must be below config.steps, {steps}")
    peak = float(config["learning_rate"])
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, peak * float(config["final_fraction"]))


def make_optimizer(config: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019) on kernels and embeddings; biases, norms and scalars are not decayed."""

    def decayed(params):
        return jax.tree_util.tree_map_with_path(lambda path, p: p.ndim > 1 and "norm" not in path_name(path), params)

    return optax.chain(
        optax.clip_by_global_norm(float(config["clip_norm"])),
        optax.adamw(
            learning_rate_schedule(config, steps),
            b1=float(config["b1"]),
            b2=float(config["b2"]),
            eps=1e-8,
            weight_decay=float(config["weight_decay"]),
            mask=decayed,
        ),
    )
