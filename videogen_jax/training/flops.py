"""Floating point operations of a traced program: matrix products and convolutions, loops counted in full."""

import math
from typing import Any

from jax.extend import core


def count_flops(jaxpr: Any, platform: str = "tpu") -> float:
    """FLOPs of the products and convolutions in a jaxpr, over all devices; a multiplication and an addition are two.

    What is computed again in a backward pass (`jax.checkpoint`) counts each time, the body of a scan as often as it
    runs, that of a `while_loop` once. Of `jax.lax.platform_dependent` the branch of `platform` counts, of other
    conditions the longest.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel, spec = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
            window = math.prod(kernel[axis] for axis in spec[1:])  # its input channels are those of one group
            total += 2 * math.prod(equation.outvars[0].aval.shape) * window
        elif name == "cond":
            counts = [count_flops(branch.jaxpr, platform) for branch in params["branches"]]
            platforms = params.get("branches_platforms")
            if platforms is None:
                total += max(counts)
            else:
                total += next(n for n, names in zip(counts, platforms, strict=True) if not names or platform in names)
        else:
            times = params["length"] if name == "scan" else 1
            total += times * sum(count_flops(inner, platform) for inner in _inner(params))
    return total


def _inner(params: dict[str, Any]) -> list[Any]:
    """The jaxprs among an equation's parameters, unless they are there to be differentiated or transposed."""
    found = []
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, core.Jaxpr):
                found.append(item)
    return found
