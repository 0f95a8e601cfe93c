"""Fixtures for the tests of several modules."""

import importlib.util
import os
from pathlib import Path

import jax
import pytest


def pytest_configure(config):
    """Most of the suite's time is XLA compiling programs that run once: it leaves out its optimizations.

    Here and in what the tests start; JAX reads it when it is first used, and a value from outside wins. The slow tests
    run long enough to be worth compiling well.
    """
    if config.option.markexpr == "not slow":
        os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}".strip()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A whole model folder, tiny and untrained (see tests/tiny_model.py). Not to be written to."""
    spec = importlib.util.spec_from_file_location("tiny_model", Path(__file__).with_name("tiny_model.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_tiny_model(tmp_path_factory.mktemp("tiny_model"))


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_model):
    """The tiny model loaded; what one test compiles, the others find."""
    from videogen_jax.pipeline import VideoGenPipeline

    return VideoGenPipeline.from_pretrained(tiny_model)


@pytest.fixture
def compilations():
    """A list that grows by one whenever XLA is asked for a program."""
    seen = []

    def listen(event: str, duration: float, **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)
