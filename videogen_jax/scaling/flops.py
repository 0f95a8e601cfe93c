"""Floating-point operations of a program, counted from its jaxpr.

XLA's own count takes the body of a loop once and knows nothing of custom calls, so it misses most of an attention in
blocks (models/ops/attention.py) and of a batch in parts (training/state.py).
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


def count_flops(function: Callable, *args: Any) -> int:
    """Operations of the matrix products and convolutions of `function(*args)`, a multiply-add being two.

    Everything else is left out, as is usual for MFU. A scan's body counts as often as it runs; what
    `jax.checkpoint` computes again counts again. Of `lax.platform_dependent` the default counts, of a `lax.cond` the
    dearest branch. Padding counts as data, the zeros between the elements of a dilated operand do not.

    Args:
      function: anything that can be traced.
      args: arrays or `jax.ShapeDtypeStruct`, in pytrees.

    Raises:
      ValueError: products in a loop of unknown length or in a Pallas kernel.
    """
    return count_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def count_jaxpr(jaxpr: Any) -> int:
    """As `count_flops`, of what has been traced."""
    return sum(_COUNTERS.get(equation.primitive.name, _count_inner)(equation) for equation in jaxpr.eqns)


def _count_inner(equation: Any) -> int:
    return sum(count_jaxpr(inner) for inner in _inner(tuple(equation.params.values())))


def _inner(values: tuple) -> Iterator[Any]:
    """The jaxprs among the parameters of an equation."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _inner(tuple(value))
        elif hasattr(value, "eqns"):
            yield getattr(value, "jaxpr", value)


def _count_dot(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)


def _count_conv(equation: Any) -> int:
    """Each output element is a sum over the kernel's positions and the input channels of its group."""
    kernel, params = equation.invars[1].aval, equation.params
    terms = kernel.size // kernel.shape[params["dimension_numbers"].rhs_spec[0]]
    return 2 * equation.outvars[0].aval.size * terms // math.prod(params["lhs_dilation"])


def _count_cond(equation: Any) -> int:
    branches, platforms = equation.params["branches"], equation.params.get("branches_platforms")
    if platforms is not None:
        branches = [branch for branch, names in zip(branches, platforms, strict=True) if names is None] or branches
    return max(count_jaxpr(branch.jaxpr) for branch in branches)


def _count_unknown(equation: Any) -> int:
    if _count_inner(equation):
        raise ValueError(f"the operations of {equation.primitive.name} cannot be counted: {equation.source_info}")
    return 0


_COUNTERS: dict[str, Callable[[Any], int]] = {
    "dot_general": _count_dot,
    "conv_general_dilated": _count_conv,
    "scan": lambda equation: equation.params["length"] * _count_inner(equation),
    "cond": _count_cond,
    "while": _count_unknown,
    "pallas_call": _count_unknown,
}
