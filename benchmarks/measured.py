"""A program's time beside what it computes and moves, the peak memory of a process, and published peak rates."""

import contextlib
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from side_by_side import flops_of

from videogen_jax.scaling.flops import count_flops

# Dense bfloat16 FLOP/s that the makers publish, by the start of jax.Device.device_kind; longer starts come first.
PUBLISHED = {
    "NVIDIA H100": 989e12,  # SXM
    "NVIDIA H200": 989e12,
    "NVIDIA A100": 312e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}


def published_peak() -> float | None:
    """Of the first device, or None where the table does not know it, as for every CPU."""
    kind = jax.devices()[0].device_kind
    return next((peak for start, peak in PUBLISHED.items() if kind.startswith(start)), None)


def peak_memory() -> dict[str, float]:
    """GB: the most that this process has held, and that its first device has where it tells."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's maximum is inherited from the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        held = 1024 * int(line.split()[1])
    else:
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peaks = {"process": held / 1e9}
    statistics_of_device = jax.devices()[0].memory_stats()
    if statistics_of_device:
        peaks["device"] = statistics_of_device["peak_bytes_in_use"] / 1e9
    return peaks


def describe(function: Callable, args: Sequence[Any], compiled: jax.stages.Compiled) -> dict[str, float | None]:
    """What a program computes and moves.

    flops: of products and convolutions, by `count_flops`; xla_flops, xla_bytes: XLA's count, loops taken once;
    least_bytes: arguments and results; temporary_bytes: what it holds besides.
    """
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    return {
        "flops": count_flops(function, *args),
        "xla_flops": flops_of(compiled),
        "xla_bytes": cost.get("bytes accessed"),
        "least_bytes": memory.argument_size_in_bytes + memory.output_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
    }


class MeasuredPrograms:
    """In the place of a pipeline's `Programs`: compiles one program after another, waits for each run and times it.

    Attributes:
      programs: by name, what `describe` says, `compile_seconds` and the `seconds` of each run.
    """

    def __init__(self) -> None:
        self.programs: dict[str, dict[str, Any]] = {}
        self._compiled: dict[tuple, tuple[str, jax.stages.Compiled]] = {}

    @contextlib.contextmanager
    def prepared_by(self, walk: Callable) -> Iterator[None]:
        """Nothing is prepared ahead."""
        del walk
        yield

    def _prepare(self, key: tuple, function: Callable, args: tuple, donate: tuple[int, ...]) -> None:
        if key in self._compiled:
            return
        begun = time.perf_counter()
        compiled = jax.jit(lambda *args: function(*args), donate_argnums=donate).lower(*args).compile()
        seconds = time.perf_counter() - begun
        name = str(key[0])
        self._compiled[key] = name, compiled
        self.programs[name] = {"compile_seconds": seconds, **describe(function, args, compiled), "seconds": []}

    def run(
        self,
        key: tuple,
        function: Callable,
        *args: Any,
        donate: tuple[int, ...] = (),
        waiting: Callable[[], None] | None = None,
    ) -> Any:
        del waiting
        self._prepare(key, function, args, donate)
        name, compiled = self._compiled[key]
        begun = time.perf_counter()
        result = jax.block_until_ready(compiled(*args))
        self.programs[name]["seconds"].append(time.perf_counter() - begun)
        return result


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def fit_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Slope, intercept and R^2 of the least squares line; R^2 is 1 where y does not vary."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    slope, intercept = np.polyfit(x, y, 1)
    spread = np.sum((y - y.mean()) ** 2)
    missed = np.sum((y - slope * x - intercept) ** 2)
    return float(slope), float(intercept), 1.0 if spread == 0 else float(1 - missed / spread)
