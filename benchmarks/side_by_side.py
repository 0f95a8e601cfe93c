"""Ways to compute the same thing, timed in turns in one process, and what the machine allows."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Times = dict[str, list[float]]


def in_turns(ways: Mapping[str, Callable[[], Any]], rounds: int) -> Times:
    """Seconds of each round of each way; every way runs once before, uncounted. A JAX way's result is waited for."""
    for run in ways.values():
        jax.block_until_ready(run())
    times: Times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            begun = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - begun)
    return times


def report(title: str, times: Times, against: str, flops: float | None = None) -> dict[str, Any]:
    """Prints a table of medians and spread, each with its ratio to the way `against`; returns it for JSON.

    flops: of one run, for rates; the ratio is the median of the rounds' own ratios.
    """
    rate = "" if flops is None else f" {'GFLOP/s':>8}"
    print(f"{title:<44} {'median s':>9} {'least':>8} {'most':>8}{rate}   of {against}")
    rows = {}
    for name, values in times.items():
        median = statistics.median(values)
        ratio = statistics.median(a / b for a, b in zip(values, times[against], strict=True))
        rows[name] = {"seconds": values, "median": median, "ratio": ratio}
        shown = ""
        if flops is not None:
            rows[name]["gflops"] = flops / median / 1e9
            shown = f" {flops / median / 1e9:8.0f}"
        print(f"  {name:<42} {median:9.3f} {min(values):8.3f} {max(values):8.3f}{shown}   {ratio:.2f}")
    return rows


def relative_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, as a share of the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def machine() -> dict[str, float]:
    """What the device gives: float32 matrix products in GFLOP/s, and copies in GB/s read and written."""
    side, count = 2048, 2**26
    product = jax.jit(lambda x: x @ x)
    copy = jax.jit(lambda x: x + 1.0)
    square, row = jnp.ones((side, side)), jnp.ones(count)
    times = in_turns({"product": lambda: product(square), "copy": lambda: copy(row)}, 5)
    return {
        "gflops": 2 * side**3 / min(times["product"]) / 1e9,
        "gigabytes": 2 * 4 * count / min(times["copy"]) / 1e9,
    }


def flops_of(compiled: jax.stages.Compiled) -> float | None:
    """Floating-point operations of a program as XLA counts them, or None where the backend does not."""
    analysis = compiled.cost_analysis()
    return None if not analysis else analysis.get("flops")


def write_json(path: str | None, figures: Mapping[str, Any]) -> None:
    if path:
        Path(path).write_text(json.dumps(figures, indent=2) + "\n")
