"""One training step of each stage, as videogen_jax/training runs it: time, FLOPs, MFU, data wait, memory.

    python benchmarks/train.py [--config configs/shapes/cascade.py:resolution=16 ...] [--rounds 5] [--output train.json]

Each config has a process of its own. The frozen parts are those of `--model`; a shapes config reads few clips, encoded
beforehand. Steps are waited for one by one; the data wait is the share of the time that is spent waiting for the
loader, as the training log has it. MFU is against the device's published bfloat16 rate; on a CPU against the rate of
its own matrix products, measured beforehand.
"""

import argparse
import importlib.util
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import platforms
from side_by_side import write_json

CONFIGS = (
    "configs/shapes/text.py",
    "configs/shapes/autoencoder.py",
    "configs/shapes/reference.py",
    "configs/shapes/cascade.py:resolution=4",
    "configs/shapes/cascade.py:resolution=8",
    "configs/shapes/cascade.py:resolution=16",
    "configs/shapes/temporal.py",
    "configs/shapes/decoder.py",
)
CLIPS = 64  # of a shapes config


def read_config(name: str, model: str, folder: str) -> Any:
    path, _, arg = name.partition(":")
    spec = importlib.util.spec_from_file_location("config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(*([arg] if arg else []))
    config.model_folder = model
    config.init_from = ""
    if config.data.source.startswith("shapes"):
        config.data.num_clips = CLIPS
    if "cache_folder" in config.data:
        config.data.cache_folder = folder
    return config


def measure(name: str, model: str | None, rounds: int) -> dict[str, Any]:
    """One config's step, compiled once and run `rounds` times after a first."""
    import jax
    import jax.numpy as jnp
    from measured import describe, median, peak_memory

    from videogen_jax.data.loader import make_loader, take
    from videogen_jax.runtime.host_memory import keep_freed_memory
    from videogen_jax.training.mesh import make_mesh, place_batch, step_shardings
    from videogen_jax.training.optimizer import make_optimizer
    from videogen_jax.training.run import load_inputs
    from videogen_jax.training.state import init_state, make_train_step
    from videogen_jax.weights.hub import EMBEDDED, resolve

    keep_freed_memory(one_heap=True)  # as the entry point does
    with tempfile.TemporaryDirectory() as folder:
        config = read_config(name, str(resolve(model or EMBEDDED)), folder)
        inputs = load_inputs(config, folder)
        stage, source, frozen = inputs.stage, inputs.source, inputs.frozen
        mesh = make_mesh(config.mesh)
        optimizer = make_optimizer(config.optimizer, config.steps)
        loader = make_loader(source, config.batch_size, config.seed, num_threads=config.loader_threads)
        example, rng = take(source, range(1)), jax.random.key(config.seed)
        shapes = jax.eval_shape(lambda rng: init_state(stage, optimizer, rng, example), rng)
        state_shardings, frozen_shardings = step_shardings(config, mesh, shapes, frozen)
        frozen = jax.device_put(frozen, frozen_shardings)
        create = jax.jit(lambda rng: init_state(stage, optimizer, rng, example), out_shardings=state_shardings)
        state = create(rng)

        def draw() -> Any:
            return place_batch(next(loader), mesh, range(config.batch_size), config.batch_size)

        step = make_train_step(stage, optimizer, config, state_shardings, frozen_shardings)
        batch = draw()
        begun = time.perf_counter()
        compiled = step.lower(state, frozen, batch).compile()
        compile_seconds = time.perf_counter() - begun
        described = describe(step, (state, frozen, batch), compiled)
        state, metrics = jax.block_until_ready(compiled(state, frozen, batch))
        waits, seconds = [], []
        for _ in range(rounds):
            begun = time.perf_counter()
            batch = draw()
            drawn = time.perf_counter()
            state, metrics = jax.block_until_ready(compiled(state, frozen, batch))
            waits.append(drawn - begun)
            seconds.append(time.perf_counter() - drawn)
        if not bool(jnp.isfinite(metrics["loss"])):
            raise ValueError(f"{name}: the loss is no longer finite, so that its times are of no use")
        whole = sum(waits) + sum(seconds)
        return {
            "config": name,
            "batch": config.batch_size,
            "compile_seconds": compile_seconds,
            **described,
            "seconds": seconds,
            "examples_per_second": rounds * config.batch_size / whole,
            "data_wait": sum(waits) / whole,
            "gflops": described["flops"] / median(seconds) / 1e9,
            "peak_memory": peak_memory(),
        }


def rate() -> dict[str, Any]:
    """The FLOP/s that MFU is against, and where it is from."""
    import jax
    from measured import published_peak
    from side_by_side import machine

    peak = published_peak()
    found = {"device": jax.devices()[0].device_kind, "machine": machine()}
    if peak is None:
        return {**found, "peak": found["machine"]["gflops"] * 1e9, "from": "its own float32 matrix products"}
    return {**found, "peak": peak * jax.device_count(), "from": "published for bfloat16"}


def alone(function: Any, *args: Any) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    platforms.add_platform(parser)
    parser.add_argument("--config", nargs="+", default=CONFIGS, help="left out, those of configs/shapes")
    parser.add_argument("--model", help="a folder with the frozen parts; left out, the embedded model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", help="a .json file for the figures")
    asked = parser.parse_args()
    if asked.rounds < 1:
        parser.error(f"--rounds is {asked.rounds}, but must be at least 1")
    os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])  # `configs`
    sys.path.insert(0, os.getcwd())
    device = alone(rate)
    print(f"{device['device']}: MFU against {device['peak'] / 1e9:,.0f} GFLOP/s, {device['from']}")
    heads = ("batch", "compile s", "step s", "least", "most", "GFLOP", "XLA's", "GFLOP/s", "MFU", "ex/s", "wait", "GB")
    print(f"{'':<30}" + "".join(f"{head:>10}" for head in heads))
    runs = []
    for name in asked.config:
        run = alone(measure, name, asked.model, asked.rounds)
        run["mfu"] = run["gflops"] * 1e9 / device["peak"]
        runs.append(run)
        ordered = sorted(run["seconds"])
        theirs = "-" if run["xla_flops"] is None else f"{run['xla_flops'] / 1e9:.2f}"
        values = (
            f"{run['batch']}",
            f"{run['compile_seconds']:.1f}",
            f"{ordered[len(ordered) // 2]:.3f}",
            f"{ordered[0]:.3f}",
            f"{ordered[-1]:.3f}",
            f"{run['flops'] / 1e9:.2f}",
            theirs,
            f"{run['gflops']:.0f}",
            f"{run['mfu']:.0%}",
            f"{run['examples_per_second']:.1f}",
            f"{run['data_wait']:.1%}",
            f"{run['peak_memory'].get('device', run['peak_memory']['process']):.2f}",
        )
        print(f"{name.removeprefix('configs/'):<30}" + "".join(f"{value:>10}" for value in values), flush=True)
    write_json(asked.output, {"device": device, "steps": runs})


if __name__ == "__main__":
    main()
