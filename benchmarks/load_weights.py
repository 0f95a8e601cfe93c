"""Loading a UNet of Stable Diffusion 1.5's size from a local file: host memory, and time beside safetensors alone.

    python benchmarks/load_weights.py [--dtype float16] [--folder /tmp/unet] [--repeats 3]

Writes random weights (860 M parameters) once, then reads them in fresh processes, turn by turn: with
`safetensors.numpy.load_file`, which only reads, and with `load_reference`, which also turns every tensor into the
network's layout and type. Before each turn the file is read and memory is filled and freed once, so that both find the
file in the page cache and memory that a virtual machine's host has already given (that alone may take seconds).
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

STABLE_DIFFUSION_15 = {"cross_attention_dim": 768, "num_heads": 8}
WAYS = ("safetensors", "videogen_jax")


def write(folder: Path, dtype: str) -> None:
    import jax
    import numpy as np

    from videogen_jax.training.build import build_stage
    from videogen_jax.weights.diffusers_config import public_config
    from videogen_jax.weights.folder import save_part
    from videogen_jax.weights.parts import save_scheduler

    stage = build_stage("reference", {"unet": STABLE_DIFFUSION_15})
    batch = {"latents": np.zeros((1, 1, 8, 8, 4), np.float32), "context": np.zeros((1, 2, 768), np.float32)}
    shapes = jax.eval_shape(stage.init, jax.random.key(0), batch)["unet"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32) * 0.02, shapes)
    save_part(folder / "unet", public_config(stage.parts()["unet"][1], 64), params, dtype=dtype)
    save_scheduler(folder, stage)


def read(folder: Path, way: str) -> dict[str, float]:
    """Seconds, bytes of the parameters that are given back, and the process's peak memory above what it began with."""
    import jax
    from safetensors.numpy import load_file

    from videogen_jax.weights.parts import load_reference

    jax.devices()
    before = memory("VmRSS")
    begin = time.perf_counter()
    if way == "safetensors":
        params = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    else:
        params = load_reference(folder).params
    seconds = time.perf_counter() - begin
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    return {"seconds": seconds, "parameters": size, "peak": memory("VmHWM") - before}


def memory(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most so far (`ru_maxrss` would begin at the parent's)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--folder", type=Path, default=Path("/tmp/videogen_unet"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--read", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read(arguments.folder, arguments.read)))
        return
    folder = arguments.folder / arguments.dtype
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    if not file.exists():
        write(folder, arguments.dtype)
    results: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(arguments.repeats):
        for way in WAYS:
            prepare = "import numpy, sys; file = open(sys.argv[1], 'rb').read(); numpy.ones(10 * 2**30, numpy.int8)"
            subprocess.run([sys.executable, "-c", prepare, str(file)], check=True)
            command = [sys.executable, __file__, "--read", way, "--folder", str(folder)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[way].append(json.loads(output.splitlines()[-1]))
    gib = 2**30
    print(f"file: {file.stat().st_size / gib:.2f} GiB ({arguments.dtype})")
    for way, runs in results.items():
        best = min(runs, key=lambda run: run["seconds"])
        beyond = max(run["peak"] for run in runs) - best["parameters"]
        print(
            f"{way}: {best['seconds']:.2f} s at best of {len(runs)}, parameters {best['parameters'] / gib:.2f} GiB, "
            f"peak memory beyond them {beyond / gib:.2f} GiB, {beyond / file.stat().st_size:.2f} of the file's size"
        )
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(*results.values(), strict=True)]
    print(f"videogen_jax / safetensors, time, pair by pair: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
