"""A profile of some training steps, for XProf and TensorBoard's profile plugin."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import logging

FOLDER = "profile"  # in the workdir


def parse_steps(text: str) -> range:
    """Parse "100:105", the five steps from 100 on. ValueError: it is of another form, or holds no step."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or not 1 <= int(match[1]) < int(match[2]):
        raise ValueError(
            f"--profile_steps is {text!r}, but must be the first step and the one after the last, as 100:105"
        )
    return range(int(match[1]), int(match[2]))


class Profile:
    """Traces the steps of a run that are to be profiled.

    Args:
      workdir: of the run; the trace is written into its folder `profile`.
      steps: to be traced; those before the run's first are left out. None: none.
    """

    def __init__(self, workdir: Path, steps: range | None):
        self._folder, self._steps = workdir / FOLDER, steps or range(0)
        self._tracing = False

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Trace a step, which the block takes, if it is to be profiled."""
        if step not in self._steps:
            yield
            return
        if not self._tracing:
            jax.profiler.start_trace(self._folder)
            self._tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def after(self, step: int, state: Any) -> None:
        """End tracing after the last of the steps, once `state` is computed."""
        if self._tracing and step + 1 not in self._steps:
            jax.block_until_ready(state)
            self.close()
            logging.info("A profile of the steps up to %d is in %s", step, self._folder)

    def close(self) -> None:
        """End tracing, if that has not happened yet."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False


def device_memory() -> dict[str, float]:
    """What the first device of this process has held at most, `memory_gib`; nothing where a backend does not say."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    peak = statistics.get("peak_bytes_in_use")
    return {} if peak is None else {"memory_gib": peak / 2**30}
