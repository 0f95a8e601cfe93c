"""Loading a large UNet from a local file: host memory, and time beside safetensors alone.

    python benchmarks/load_weights.py [--model stable_video_diffusion] [--dtype bfloat16] [--as_dtype bfloat16]

Writes random weights once (Stable Diffusion 1.5's 860 M parameters, or Stable Video Diffusion's 1,525 M), then reads
them in fresh processes, turn by turn: with `safetensors.numpy.load_file`, which only reads, and as the model does,
which also turns every tensor into the network's layout and type. Before each turn the file is read and memory is filled
and freed once, so that both find the file in the page cache and memory that a virtual machine's host has already given
(that alone may take seconds).
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

UNETS = {
    "stable_diffusion": {
        "_class_name": "UNet2DConditionModel",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 768,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "layers_per_block": 2,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    },
    "stable_video_diffusion": {
        "_class_name": "UNetSpatioTemporalConditionModel",
        "addition_time_embed_dim": 256,
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 1024,
        "down_block_types": ["CrossAttnDownBlockSpatioTemporal"] * 3 + ["DownBlockSpatioTemporal"],
        "in_channels": 8,
        "layers_per_block": 2,
        "num_attention_heads": [5, 10, 20, 20],
        "num_frames": 25,
        "out_channels": 4,
        "projection_class_embeddings_input_dim": 768,
        "sample_size": 96,
        "transformer_layers_per_block": 1,
        "up_block_types": ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * 3,
    },
}
SCHEDULERS = {
    "stable_diffusion": {
        "_class_name": "DDIMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "clip_sample": False,
    },
    "stable_video_diffusion": {
        "_class_name": "EulerDiscreteScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
        "use_karras_sigmas": True,
        "sigma_min": 0.002,
        "sigma_max": 700.0,
        "timestep_type": "continuous",
        "timestep_spacing": "leading",
        "steps_offset": 1,
    },
}
WAYS = ("safetensors", "videogen_jax")


def write(folder: Path, model: str, dtype: str) -> None:
    """Write a UNet of random numbers."""
    import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)
    import numpy as np

    from videogen_jax.runtime.files import save_json
    from videogen_jax.weights import folder as folders

    # The names and shapes are found by asking for a network's parameters where there are none.
    shapes = {}

    def note(folder, template, dtype=None, prefix=""):
        shapes.update(template)
        return template

    (folder / "unet").mkdir(parents=True)
    save_json(folder / "unet" / "config.json", UNETS[model])
    save_json(folder / "scheduler" / "scheduler_config.json", SCHEDULERS[model])
    load(folder, model, dtype, load_part=note)
    rng = np.random.default_rng(0)

    def draw(tree):
        if isinstance(tree, dict):
            return {name: draw(value) for name, value in tree.items()}
        return (rng.standard_normal(tree.shape, np.float32) * 0.02).astype(dtype)

    folders.save_part(folder / "unet", UNETS[model], draw(shapes), dtype=dtype)


def load(folder: Path, model: str, dtype: str, load_part=None):
    """The UNet's parameters, as the model loads them; `load_part` in place of the function that reads the file."""
    from videogen_jax.weights import parts, public_parts

    for module in (parts, public_parts) if load_part else ():
        module.load_part = load_part
    if model == "stable_diffusion":
        return parts.load_reference(folder, dtype).params
    return public_parts.load_image_to_video(folder, 1024, 72, dtype)[1]


def read(folder: Path, model: str, dtype: str, way: str) -> dict[str, float]:
    """Seconds, bytes of the parameters that are given back, and the process's peak memory above what it began with."""
    import jax
    from safetensors.numpy import load_file

    jax.devices()
    before = memory("VmRSS")
    begin = time.perf_counter()
    if way == "safetensors":
        params = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    else:
        params = load(folder, model, dtype)
    seconds = time.perf_counter() - begin
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    return {"seconds": seconds, "parameters": size, "peak": memory("VmHWM") - before}


def memory(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most so far (`ru_maxrss` would begin at the parent's)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stable_diffusion", choices=tuple(UNETS))
    types = {"default": "float16", "choices": ("float16", "bfloat16", "float32")}
    parser.add_argument("--dtype", help="of the file", **types)
    parser.add_argument("--as_dtype", help="of the parameters that are returned", **types | {"default": "float32"})
    parser.add_argument("--folder", type=Path, default=Path("/tmp/videogen_unet"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--read", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read(arguments.folder, arguments.model, arguments.as_dtype, arguments.read)))
        return
    folder = arguments.folder / arguments.model / arguments.dtype
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    if not file.exists():
        write(folder, arguments.model, arguments.dtype)
    results: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(arguments.repeats):
        for way in WAYS:
            prepare = "import numpy, sys; file = open(sys.argv[1], 'rb').read(); numpy.ones(7 * 2**30, numpy.int8)"
            subprocess.run([sys.executable, "-c", prepare, str(file)], check=True)
            command = [sys.executable, __file__, "--read", way, "--folder", str(folder)]
            command += ["--model", arguments.model, "--as_dtype", arguments.as_dtype]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[way].append(json.loads(output.splitlines()[-1]))
    gib = 2**30
    print(f"file: {file.stat().st_size / gib:.2f} GiB ({arguments.dtype}), returned as {arguments.as_dtype}")
    for way, runs in results.items():
        best = min(runs, key=lambda run: run["seconds"])
        beyond = max(run["peak"] for run in runs) - best["parameters"]
        print(
            f"{way}: {best['seconds']:.2f} s at best of {len(runs)}, parameters {best['parameters'] / gib:.2f} GiB, "
            f"peak memory {1 + beyond / best['parameters']:.2f} of them"
        )
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(*results.values(), strict=True)]
    print(f"videogen_jax / safetensors, time, pair by pair: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
