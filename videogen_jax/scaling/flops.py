"""Floating-point operations of a program, counted from its jaxpr.

XLA's own cost analysis counts the body of a loop once and ignores custom calls, so it misses most of blockwise
attention (models/ops/attention.py) and of gradient accumulation (training/state.py).
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


def count_flops(function: Callable, *args: Any) -> int:
    """Count the operations of the matrix products and convolutions of `function(*args)`; a multiply-add counts as two.

    Everything else is ignored, as is usual for MFU. The body of a scan counts once per iteration, and what
    `jax.checkpoint` recomputes counts again. Of `lax.platform_dependent` the default is counted, of `lax.cond` the most
    expensive branch. Padding counts as data; the zeros between the elements of a dilated operand do not.

    Args:
      function: any traceable function.
      args: arrays or `jax.ShapeDtypeStruct`, in pytrees.

    Raises:
      ValueError: a loop of unknown length or a Pallas kernel contains products.
    """
    return count_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def count_jaxpr(jaxpr: Any) -> int:
    """Count the operations of a traced function; see `count_flops`."""
    return sum(_COUNTERS.get(equation.primitive.name, _count_nested)(equation) for equation in jaxpr.eqns)


def _count_nested(equation: Any) -> int:
    return sum(count_jaxpr(nested) for nested in _nested_jaxprs(tuple(equation.params.values())))


def _nested_jaxprs(values: tuple) -> Iterator[Any]:
    """Yield the jaxprs among the parameters of an equation."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _nested_jaxprs(tuple(value))
        elif hasattr(value, "eqns"):
            yield getattr(value, "jaxpr", value)


def _count_dot(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)


def _count_conv(equation: Any) -> int:
    """Count a convolution: each output element sums over the kernel's positions and its group's input channels."""
    kernel, params = equation.invars[1].aval, equation.params
    terms = kernel.size // kernel.shape[params["dimension_numbers"].rhs_spec[0]]
    return 2 * equation.outvars[0].aval.size * terms // math.prod(params["lhs_dilation"])


def _count_cond(equation: Any) -> int:
    branches, platforms = equation.params["branches"], equation.params.get("branches_platforms")
    if platforms is not None:
        branches = [branch for branch, names in zip(branches, platforms, strict=True) if names is None] or branches
    return max(count_jaxpr(branch.jaxpr) for branch in branches)


def _count_unknown(equation: Any) -> int:
    if _count_nested(equation):
        raise ValueError(f"the operations of {equation.primitive.name} cannot be counted: {equation.source_info}")
    return 0


_COUNTERS: dict[str, Callable[[Any], int]] = {
    "dot_general": _count_dot,
    "conv_general_dilated": _count_conv,
    "scan": lambda equation: equation.params["length"] * _count_nested(equation),
    "cond": _count_cond,
    "while": _count_unknown,
    "pallas_call": _count_unknown,
}
