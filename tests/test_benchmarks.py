"""What the benchmarks compute from their times: lines, bounds, and what is recorded of a pipeline's programs."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture
def benchmarks(monkeypatch):
    """The folder of the benchmarks, which is no package, to import from."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(BENCHMARKS):
            del sys.modules[name]


def test_line_through_points(benchmarks):
    from measured import fit_line

    assert fit_line([1, 2, 4], [5, 7, 11]) == pytest.approx((2, 3, 1))
    assert fit_line([1, 2, 3], [4, 4, 4]) == pytest.approx((0, 4, 1))
    x, y = np.arange(6.0), np.array([0.0, 1.0, 4.0, 9.0, 16.0, 25.0])
    assert fit_line(x, y)[2] == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)


def test_longer_of_two_bounds(benchmarks):
    from roofline import bound

    allowed = {"gflops": 100.0, "gigabytes": 10.0}
    assert bound({"flops": 2e11, "least_bytes": 1e9}, allowed) == (2.0, "products")
    assert bound({"flops": 2e9, "least_bytes": 5e9}, allowed) == (0.5, "bytes")


def test_every_program_of_a_call_is_recorded(benchmarks, tiny_model):
    from measured import MeasuredPrograms
    from sample import stage_of

    from videogen_jax.sampling.pipeline import VideoGenPipeline

    pipeline = VideoGenPipeline.from_pretrained(tiny_model)
    pipeline.programs = recorded = MeasuredPrograms()
    pipeline("a small red circle moving right", steps=2)
    stages = {"text", "reference", "encode", "cascade_4", "cascade_8", "temporal_upsampler", "decode"}
    assert {stage_of(name) for name in recorded.programs} == stages
    for name in ("reference", "cascade_4", "cascade_8"):
        program = recorded.programs[name]
        assert len(program["seconds"]) == 2
        assert program["flops"] > 0
        assert program["least_bytes"] > 0
