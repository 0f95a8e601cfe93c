"""Fixtures for the tests of several modules."""

import gc
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent
# What `pytest -m quick` runs: files, or names of tests in them. No process is started, no network is trained.
QUICK = (
    "data/test_clips.py",
    "data/test_loader.py",
    "data/test_position.py",
    "diffusion/test_augmentation.py",
    "diffusion/test_predictions.py",
    "diffusion/test_schedules.py",
    "interpolation/test_windows.py",
    "metrics/test_frechet.py",
    "metrics/test_inception_score.py",
    "models/ops/test_normalization.py",
    "runtime/test_host_memory.py",
    "sampling/test_command.py::test_bad_input",
    "sampling/test_request.py",
    "scaling/test_chips.py",
    "scaling/test_flops.py",
    "scaling/test_hlo.py",
    "shapes/test_world.py",
    "stages/test_stages.py::test_dropped_text_is_the_empty_prompts",
    "stages/test_stages.py::test_frames_and_their_integers",
    "stages/test_stages.py::test_lists_of_a_config_become_tuples",
    "stages/test_stages.py::test_reference_and_mask_are_joined",
    "stages/test_stages.py::test_resize_averages_down",
    "stages/test_stages.py::test_stage_with_a_field",
    "studio/test_fair_queue.py",
    "studio/test_uploads.py",
    "training/test_loop.py::test_config_that_cannot_work_is_refused",
    "training/test_mesh.py::test_first_matching_rule",
    "training/test_mesh.py::test_mesh",
    "training/test_samples.py",
    "training/test_writers.py",
    "weights/test_folder.py",
    "weights/test_hub.py",
    "weights/test_model_index.py",
    "test_train_cli.py::test_bad_command_line",
)


def pytest_configure(config):
    """Most of the suite's time is XLA compiling programs that run once or twice.

    It leaves out its optimizations, and what one process has compiled the others of this session read, be they workers
    or what the tests start: JAX's persistent cache is on, in a folder that goes with the session. Programs do not note
    where in the code each operation comes from, which is a fifth of tracing. The flags are read when JAX is first used,
    and those from outside win. The slow tests run long enough to be worth compiling well.
    """
    if config.option.markexpr not in ("not slow", "quick"):
        return
    if not hasattr(config, "workerinput"):  # a worker has the environment of the process that started it
        # Threads that wait for their share of a tiny product keep the other worker's core busy.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        flags = ["--xla_backend_optimization_level=0", "--xla_cpu_multi_thread_eigen=false"]
        flags.append(os.environ.get("XLA_FLAGS", ""))
        if jax.__version_info__ < (0, 11):  # a later XLA may not know these, and stops at a flag that it does not know
            # The older emitters and modules that are not split for threads compile in less than half the time, without
            # LLVM's longer passes it is a seventh less again, and so it is with the preset.
            flags[:0] = [
                "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE",
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
        os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])  # JAX is imported already
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_traceback_in_locations_limit", 0)
    gc.set_threshold(50_000, 50, 100)  # tracing makes many objects, and few are garbage


def pytest_ignore_collect(collection_path, config):
    """For quick tests, import no module that has none: some import PyTorch, which takes longer than the tests."""
    if config.option.markexpr != "quick" or not collection_path.is_file():
        return None
    return str(collection_path.relative_to(ROOT)) not in {name.split("::")[0] for name in QUICK} or None


def pytest_collection_modifyitems(items):
    """Mark what QUICK names."""
    for item in items:
        name = item.nodeid.removeprefix(f"{ROOT.name}/")
        if name.startswith(QUICK) and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.quick)


@pytest.fixture(scope="session")
def command_server():
    """A process that runs commands, see tests/command_server.py."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.command_server"],
        cwd=ROOT.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.communicate()


@pytest.fixture(scope="session")
def run_command(command_server, tmp_path_factory):
    """Run `python -m module arguments`, or `python -c code arguments`, in `cwd` with more variables.

    Returns its status and output, as `subprocess.run` does. JAX's variables cannot be set, for it is imported already;
    those of XLA can. A test of what a command imports, or of its signals, starts a process itself.
    """

    def run(module: str, *arguments: str | Path, cwd: Path = ROOT.parent, devices: int = 1, **environment: str):
        flags = environment.get("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
        environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
        assert not any(name.startswith("JAX_") for name in environment)
        folder = tmp_path_factory.mktemp("command")
        outputs = {name: folder / name for name in ("stdout", "stderr")}
        for path in outputs.values():
            path.touch()
        request = {
            "module": module,
            "arguments": list(map(str, arguments)),
            "cwd": str(cwd),
            "environment": {**os.environ, **environment},
            **{name: str(path) for name, path in outputs.items()},
        }
        print(json.dumps(request), file=command_server.stdin, flush=True)
        status = int(command_server.stdout.readline())
        texts = {name: path.read_text() for name, path in outputs.items()}
        return subprocess.CompletedProcess([module, *arguments], status, **texts)

    return run


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


@pytest.fixture(scope="module")
def drawn_by_numpy():
    """Training starts from random numbers of NumPy: to compile a network's initialisation takes as long as a step."""
    from tests.tiny_model import random_params
    from videogen_jax.training import loop
    from videogen_jax.weights.templates import parameter_shapes

    def draw(stage, optimizer, rng, batch):
        params = random_params(parameter_shapes(stage, stage.init, batch), seed=0)
        return loop.TrainState(jax.numpy.int32(0), params, params, optimizer.init(params))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "init_state", draw)
        yield


@pytest.fixture
def sample_config(tiny_model, tiny_pipeline, tmp_path, monkeypatch):
    """A config of `videogen_jax.sample` for the tiny model, loaded and compiled once for all tests.

    What a command says of the model goes into its name; output goes to tmp_path/out.
    """
    from configs.shapes.sample import get_config
    from videogen_jax.runtime import compilation_cache
    from videogen_jax.sampling.pipeline import VideoGenPipeline

    def loaded(source, dtype, cache=None):
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
