"""AdamW with warm-up and cosine decay, gradient clipping and parameters that stay fixed."""

import operator
import re
from collections.abc import Mapping
from typing import Any

import jax
import optax

from videogen_jax.training.parameter_paths import compile_pattern, example_path, path_name


def learning_rate_schedule(config: Mapping[str, Any], steps: int) -> optax.Schedule:
    """Return a schedule: linear warm-up over `warmup_steps`, then a cosine to `final_fraction` of the peak at `steps`.

    Args:
      config: `config.optimizer`.
      steps: `config.steps`.

    Raises:
      ValueError: the warm-up is not shorter than the run.
    """
    warmup = int(config["warmup_steps"])
    if not 0 <= warmup < steps:
        raise ValueError(f"config.optimizer.warmup_steps is {warmup}; it must be below config.steps, {steps}")
    peak = float(config["learning_rate"])
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, peak * float(config["final_fraction"]))


def fixed_leaves(params: Any, pattern: str) -> Any:
    """Return a tree of booleans: whether the regular expression is found in a leaf's path; "" is found in none.

    Raises:
      ValueError: it is not a regular expression, or is found in no leaf or in all of them.
    """
    if not pattern:
        return jax.tree.map(lambda _: False, params)
    compiled = _compile(pattern)
    fixed = jax.tree_util.tree_map_with_path(lambda path, _: bool(compiled.search(path_name(path))), params)
    matches = jax.tree.leaves(fixed)
    if not any(matches) or all(matches):
        none = f"none of the parameters, whose paths are such as {example_path(params)}"
        which = "all parameters" if any(matches) else none
        raise ValueError(f"config.optimizer.fixed, {pattern!r}, is found in {which}; it must be found in some")
    return fixed


def _compile(pattern: str) -> re.Pattern[str]:
    return compile_pattern(pattern, f"config.optimizer.fixed, {pattern!r},")


def make_optimizer(config: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
    """Return AdamW (Loshchilov and Hutter 2019) with gradient clipping; biases, norms and scalars are not decayed.

    Parameters in whose path `config["fixed"]` is found keep their values and have no moments.

    Args:
      config: `config.optimizer`.
      steps: `config.steps`, where the learning rate's schedule ends.

    Raises:
      ValueError: naming the field that cannot work.
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
    _compile(pattern)  # without parameters, the pattern itself can be checked now

    def fixed(params):
        return fixed_leaves(params, pattern)

    def trained(params):
        return jax.tree.map(operator.not_, fixed(params))

    return optax.chain(optax.masked(optax.set_to_zero(), fixed), clip, optax.masked(adamw, trained))
