"""AdamW with warm-up and cosine decay, gradient clipping and masks."""

import operator
import re
from collections.abc import Mapping
from typing import Any

import jax
import optax

from videogen_jax.training.parameter_paths import compile_pattern, example_path, path_name


def learning_rate_schedule(config: Mapping[str, Any], steps: int) -> optax.Schedule:
    """Linear warm-up over `warmup_steps`, then a cosine down to `final_fraction` of the peak at `steps`."""
    warmup = int(config["warmup_steps"])
    if not 0 <= warmup < steps:
        raise ValueError(f"config.optimizer.warmup_steps is {warmup}; it must be below config.steps, {steps}")
    peak = float(config["learning_rate"])
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, peak * float(config["final_fraction"]))


def fixed_leaves(params: Any, pattern: str) -> Any:
    """True for the leaves of `params` in whose path the regular expression is found; "" is found in none.

    Raises:
      ValueError: it is no regular expression, or is found in no leaf or in all of them.
    """
    if not pattern:
        return jax.tree.map(lambda _: False, params)
    compiled = _compile(pattern)
    fixed = jax.tree_util.tree_map_with_path(lambda path, _: bool(compiled.search(path_name(path))), params)
    found = jax.tree.leaves(fixed)
    if not any(found) or all(found):
        none = f"none of the parameters, which are such as {example_path(params)}"
        which = "all parameters" if any(found) else none
        raise ValueError(f"config.optimizer.fixed, {pattern!r}, is found in {which}; it must be found in some")
    return fixed


def _compile(pattern: str) -> re.Pattern[str]:
    return compile_pattern(pattern, f"config.optimizer.fixed, {pattern!r},")


def make_optimizer(config: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019) on kernels and embeddings; biases, norms and scalars are not decayed.

    Parameters whose path `config["fixed"]` is found in keep their values and have no moments.
    """

    def decayed(params):
        return jax.tree_util.tree_map_with_path(lambda path, p: p.ndim > 1 and "norm" not in path_name(path), params)

    clip = optax.clip_by_global_norm(float(config["clip_norm"]))
    adamw = optax.adamw(
        learning_rate_schedule(config, steps),
        b1=float(config["b1"]),
        b2=float(config["b2"]),
        eps=1e-8,
        weight_decay=float(config["weight_decay"]),
        mask=decayed,
    )
    pattern = config["fixed"]
    if not pattern:
        return optax.chain(clip, adamw)
    _compile(pattern)  # what can be told without parameters is told now

    def fixed(params):
        return fixed_leaves(params, pattern)

    def trained(params):
        return jax.tree.map(operator.not_, fixed(params))

    return optax.chain(optax.masked(optax.set_to_zero(), fixed), clip, optax.masked(adamw, trained))
