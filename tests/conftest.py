"""Fixtures for the tests of several modules."""

import importlib.util
import os
import tempfile
from pathlib import Path

import jax
import pytest


def pytest_configure(config):
    """Most of the suite's time is XLA compiling programs that run once or twice.

    It leaves out its optimizations, and what one process has compiled the others of this session read, be they workers
    or what the tests start: JAX's persistent cache is on, in a folder that goes with the session. The flags are read
    when JAX is first used, and those from outside win. The slow tests run long enough to be worth compiling well.
    """
    if config.option.markexpr != "not slow":
        return
    if not hasattr(config, "workerinput"):  # a worker has the environment of the process that started it
        flags = ["--xla_backend_optimization_level=0", os.environ.get("XLA_FLAGS", "")]
        if jax.__version_info__ < (0, 11):  # a later XLA may not know these, and stops at a flag that it does not know
            # The older emitters and modules that are not split for threads compile in less than half the time, and
            # without LLVM's longer passes it is a seventh less again.
            flags[:0] = [
                "--xla_cpu_use_fusion_emitters=false",
                "--xla_cpu_parallel_codegen_split_count=1",
                "--xla_llvm_disable_expensive_passes=true",
            ]
        folder = tempfile.TemporaryDirectory(prefix="compiled-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ["XLA_FLAGS"] = " ".join(flags).strip()
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])  # JAX is imported already
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


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
    from videogen_jax.sampling.pipeline import VideoGenPipeline

    return VideoGenPipeline.from_pretrained(tiny_model)


@pytest.fixture
def sample_config(tiny_model, tiny_pipeline, tmp_path, monkeypatch):
    """A config of `videogen_jax.sample` for the tiny model, loaded and compiled once for all tests.

    What a command says of the model goes into its name; output goes to tmp_path/out.
    """
    from configs.shapes.sample import get_config
    from videogen_jax.runtime import compilation_cache
    from videogen_jax.sampling.pipeline import VideoGenPipeline

    def loaded(source, dtype):
        tiny_pipeline.name = source.name
        return tiny_pipeline

    monkeypatch.setattr(VideoGenPipeline, "load", loaded)
    monkeypatch.setenv(compilation_cache.VARIABLE, "off")
    monkeypatch.chdir(tmp_path)
    config = get_config()
    config.model = str(tiny_model)
    config.batch_size = 2
    return config


@pytest.fixture
def stop_sampling(monkeypatch):
    """Set its "after" to N: sampling goes on for N calls of a pipeline, then raises KeyboardInterrupt."""
    from videogen_jax.sampling.pipeline import VideoGenPipeline

    left = {"after": 1}

    def stopping(self, *args, original=VideoGenPipeline.sample, **settings):
        if not left["after"]:
            raise KeyboardInterrupt
        left["after"] -= 1
        return original(self, *args, **settings)

    monkeypatch.setattr(VideoGenPipeline, "sample", stopping)
    return left


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
