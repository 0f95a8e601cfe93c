"""The video decoder beside diffusers' `AutoencoderKLTemporalDecoder` in PyTorch: same weights, latents and windows.

    python benchmarks/decoder.py [--size svd] [--latents 8] [--frames 16 64 256] [--compile] [--output decoder.json]

Both sides decode as the pipeline does, in windows of `--chunk` frames of which `--overlap` at each side are context
alone, into one uint8 array; a video's frames per second count the frames kept. Outputs are compared first. PyTorch runs
in the faster of its two memory formats, found on one window. FLOPs are those of PyTorch's counter, for both sides.
Float32, and with `--platform gpu` bfloat16 beside `torch.compile` (512x512: `--latents 64 --frames 64`).

Memory is measured in a process for each side and length: the peak while decoding, and what was held before, which is
the imports, the weights and one decoded window. On a CPU it is that of the whole process (Linux's VmHWM).
"""

# The import of `platforms` comes first: it has to set JAX's platform.
# ruff: isort: skip_file

import platforms

import argparse
import gc
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from side_by_side import in_turns, machine, relative_difference, report, write_json

from videogen_jax.runtime.host_memory import keep_freed_memory
from videogen_jax.sampling.generate import ArrayExecutor, decode_in_windows, decoding_windows
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.runtime.arrays import to_uint8
from videogen_jax.weights.parts import load_stage

SIZES = {"svd": (128, 256, 512, 512), "small": (32, 64, 128, 128)}
LAYERS = 2
SIDES = ("videogen_jax", "PyTorch")
Window = Callable[[np.ndarray], np.ndarray]  # latents (1, n, h, w, 4) -> frames uint8 (1, n, H, W, 3)


def on_gpu() -> bool:
    return jax.default_backend() == "gpu"


def our_decoder(folder: Path, latents: np.ndarray) -> tuple[Window, Callable]:
    """The compiled decode of one window, and the decoder before rounding."""
    stage, params = load_stage(folder, DecoderStage, 4, 1, "bfloat16" if on_gpu() else None)
    params = jax.device_put(params)
    window = jax.ShapeDtypeStruct(latents.shape, np.float32)
    compiled = jax.jit(lambda params, z: to_uint8(stage.decode(params, z))).lower(params, window).compile()
    return lambda z: np.asarray(compiled(params, z)), lambda z: np.asarray(jax.jit(stage.decode)(params, z))


def their_decoder(folder: Path, channels_last: bool, compiled: bool) -> tuple[Window, Callable]:
    """As `our_decoder`."""
    import diffusers
    import torch

    model = diffusers.AutoencoderKLTemporalDecoder.from_pretrained(folder, low_cpu_mem_usage=False).eval()
    device, dtype = ("cuda", torch.bfloat16) if on_gpu() else ("cpu", torch.float32)
    model = torch.nn.Module.to(model, device, dtype)  # diffusers' own warns of types
    if channels_last:
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.to(memory_format=torch.channels_last)
    network = torch.compile(model.decoder) if compiled else model.decoder

    def decode(latents: np.ndarray) -> Any:
        z = torch.from_numpy(latents[0]).movedim(-1, 1).to(device, dtype)
        z = z.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        count = latents.shape[1]
        with torch.no_grad():
            indicator = torch.zeros(1, count, device=device, dtype=dtype)
            return network(z, num_frames=count, image_only_indicator=indicator).movedim(1, -1)[None].float()

    def window(latents: np.ndarray) -> np.ndarray:
        return (decode(latents) * 127.5 + 127.5).clamp(0.0, 255.0).round().to(torch.uint8).cpu().numpy()

    return window, lambda z: decode(z).cpu().numpy()


def decode_video(window: Window, latents: np.ndarray, chunk: int, overlap: int) -> np.ndarray:
    """The pipeline's loop over windows: latents `(1, T, h, w, 4)` -> frames uint8 `(1, T, H, W, 3)`."""
    pieces = decode_in_windows(ArrayExecutor(None, None), window, latents, latents.shape[1], chunk, overlap)
    return np.concatenate(list(pieces), axis=1)


def make_latents(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, count, side, side, 4), np.float32)


def save_weights(folder: Path, channels: tuple[int, ...]) -> None:
    """A decoder in diffusers' layout with random weights, no temporal layer at its identity."""
    import diffusers
    import torch

    torch.manual_seed(0)
    down = ("DownEncoderBlock2D",) * len(channels)
    model = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=channels, layers_per_block=LAYERS, down_block_types=down
    )
    model.save_pretrained(folder, max_shard_size="2GB")


def memory_now(side: str) -> dict[str, float]:
    """MiB held now and at most."""
    if not on_gpu():
        status = Path("/proc/self/status").read_text()
        held, most = (int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 2**10 for name in ("VmRSS", "VmHWM"))
    elif side == SIDES[0]:
        stats = jax.local_devices()[0].memory_stats()
        held, most = stats["bytes_in_use"] / 2**20, stats["peak_bytes_in_use"] / 2**20
    else:
        import torch

        held, most = torch.cuda.memory_allocated() / 2**20, torch.cuda.max_memory_allocated() / 2**20
    return {"held": held, "most": most}


def measure_memory(asked: argparse.Namespace, folder: Path) -> dict[str, float]:
    """MiB of this process `before` decoding and at the `peak`, for one side and one length."""
    (count,) = asked.frames
    latents = make_latents(count, asked.latents)
    window = latents[:, : asked.chunk]
    if asked.memory_of == SIDES[0]:
        decode = our_decoder(folder, window)[0]
    else:
        decode = their_decoder(folder, asked.channels_last, on_gpu())[0]
    decode(window)
    gc.collect()
    before = memory_now(asked.memory_of)["held"]
    if not on_gpu():
        Path("/proc/self/clear_refs").write_text("5")  # from here on VmHWM is the peak of decoding
    decode_video(decode, latents, asked.chunk, asked.overlap)
    return {"before": before, "peak": memory_now(asked.memory_of)["most"]}


def memory_table(asked: argparse.Namespace, folder: Path, channels_last: bool) -> dict[str, dict[int, dict]]:
    """Runs this file once a side and length, prints the table and returns it."""
    rows: dict[str, dict[int, dict]] = {}
    print(f"{'memory, MiB':<20} {'frames':>6} {'before':>8} {'peak':>8}   of the shortest")
    for side in SIDES:
        rows[side] = {}
        for count in asked.frames:
            given = {"latents": asked.latents, "chunk": asked.chunk, "overlap": asked.overlap, "frames": count}
            if asked.platform:
                given["platform"] = asked.platform
            command = [sys.executable, __file__, "--memory-of", side, "--folder", str(folder)]
            command += [text for name, value in given.items() for text in (f"--{name}", str(value))]
            command += ["--channels-last"] if channels_last else []
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = rows[side][count] = json.loads(done.stdout.splitlines()[-1])
            ratio = row["peak"] / rows[side][asked.frames[0]]["peak"]
            print(f"  {side:<18} {count:6} {row['before']:8.0f} {row['peak']:8.0f}   {ratio:.2f}", flush=True)
    return rows


def better_format(folder: Path, window: np.ndarray) -> bool:
    """Whether PyTorch is faster in channels last, by the least of three runs."""
    seconds = {}
    for channels_last in (False, True):
        decode = their_decoder(folder, channels_last, False)[0]
        seconds[channels_last] = min(in_turns({"window": lambda decode=decode: decode(window)}, 3)["window"])
    print(f"PyTorch eager, one window: {seconds[False]:.3f} s contiguous, {seconds[True]:.3f} s channels last")
    return seconds[True] < seconds[False]


def compare(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from torch.utils.flop_counter import FlopCounterMode

    latents = make_latents(max(asked.frames), asked.latents)
    window = latents[:, : asked.chunk]
    channels_last = better_format(folder, window)
    ours, our_values = our_decoder(folder, window)
    theirs, their_values = their_decoder(folder, channels_last, False)
    difference = relative_difference(our_values(window), their_values(window))
    print(f"largest difference of the outputs: {difference:.1e} of the largest value")
    with FlopCounterMode(display=False) as counter:
        theirs(window)
    decoders = {"PyTorch eager": theirs, "videogen_jax": ours}
    if asked.compile or on_gpu():
        decoders["PyTorch compiled"] = their_decoder(folder, channels_last, True)[0]
    figures = {"difference": difference, "channels_last": channels_last, "machine": machine(), "lengths": {}}
    against = "PyTorch compiled" if on_gpu() else "PyTorch eager"
    for count in asked.frames:
        chunk = min(asked.chunk, count)
        video = latents[:, :count]
        ways = {
            name: lambda decode=decode, video=video, chunk=chunk: decode_video(decode, video, chunk, asked.overlap)
            for name, decode in decoders.items()
        }
        windows = len(decoding_windows(count, count, chunk, asked.overlap))
        flops = counter.get_total_flops() * windows
        side = 8 * asked.latents
        title = f"{asked.size}, {count} frames of {side}x{side}, {windows} windows"
        rows = report(title, in_turns(ways, asked.rounds), against, flops)
        for name, row in rows.items():
            row["frames_per_second"] = count / row["median"]
            print(f"    {name}: {row['frames_per_second']:.2f} frames per second", flush=True)
        figures["lengths"][count] = {"flops": flops, "windows": windows, "times": rows}
    figures["memory"] = memory_table(asked, folder, channels_last) if not asked.no_memory else None
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    platforms.add_platform(parser)
    parser.add_argument("--size", choices=SIZES, default="svd")
    parser.add_argument("--latents", type=int, default=8, help="side of the latents, an eighth of the frames'")
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--chunk", type=int, default=8, help="frames of a window")
    parser.add_argument("--overlap", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--no-memory", action="store_true", help="times alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", help="a .json file for the figures")
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--channels-last", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if min(asked.frames) < asked.chunk or asked.chunk <= 2 * asked.overlap:
        parser.error("--frames must be at least --chunk, and --chunk more than twice --overlap")
    keep_freed_memory()  # as the entry points do; it holds for both sides
    if asked.memory_of:
        print(json.dumps(measure_memory(asked, asked.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        save_weights(Path(folder), SIZES[asked.size])
        figures = compare(asked, Path(folder))
    write_json(asked.output, {"size": asked.size, "latents": asked.latents, **figures})


if __name__ == "__main__":
    main()
