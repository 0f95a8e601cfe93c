"""How long it takes until something happens: imports, `--help`, a video from the shell; each in a process of its own.

    python benchmarks/start_up.py [--rounds 3] [--cold-rounds 1] [--output start_up.json]

Videos are made with the embedded model; "cold" begins with an empty compilation cache, "warm" with one that a run
before has filled. With --aot the programs are exported first, and the time of that is given too. A warm process is one
that has made a video before.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPT = "a small red circle moving right slowly on a gray background"
IMPORTS = ("videogen_jax", "videogen_jax.sample", "videogen_jax.sampling.pipeline", "videogen_jax.sampling.command")
NEXT = f"""
import time
from videogen_jax.runtime import compilation_cache
from videogen_jax.sampling.pipeline import VideoGenPipeline
compilation_cache.enable()
pipeline = VideoGenPipeline.from_pretrained()
pipeline({PROMPT!r})
for seed in range(ROUNDS):
    begun = time.perf_counter()
    pipeline({PROMPT!r}, seed=seed)
    print(time.perf_counter() - begun)
"""


def seconds(arguments: list[str], cache: Path | None = None) -> float:
    """Start to end of a Python process. RuntimeError: it failed, with what it said."""
    environment = dict(os.environ, VIDEOGEN_JAX_CACHE="off" if cache is None else str(cache))
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed: {done.stderr.strip()}")
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold-rounds", type=int, default=1)
    parser.add_argument("--output", help="a .json file for the figures")
    asked = parser.parse_args()
    times: dict[str, list[float]] = {}
    for name in IMPORTS:
        times[f"import {name}"] = [seconds(["-c", f"import {name}"]) for _ in range(asked.rounds)]
    times["sample --help"] = [seconds(["-m", "videogen_jax.sample", "--help"]) for _ in range(asked.rounds)]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        aot = str(work / "aot")
        shell = ["-m", "videogen_jax.sample", "--prompt", PROMPT, "--output", str(work / "video.mp4")]
        stored = [*shell, "--aot", aot]
        export = ["-m", "videogen_jax.export_sampler", "--output", aot, "--nopreviews"]
        times["export_sampler"] = [seconds(export, work / "exported")]
        ways = {"traced": shell, "--aot": stored}
        for name, command in ways.items():
            for number in range(asked.cold_rounds):
                times.setdefault(f"video, cold, {name}", []).append(seconds(command, work / f"{name}{number}"))
        for _ in range(asked.rounds):  # in turns
            for name, command in ways.items():
                times.setdefault(f"video, warm, {name}", []).append(seconds(command, work / f"{name}0"))
        environment = dict(os.environ, VIDEOGEN_JAX_CACHE=str(work / "traced0"))
        again = [sys.executable, "-c", NEXT.replace("ROUNDS", str(asked.rounds))]
        printed = subprocess.run(again, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        times["next video, warm process"] = [float(line) for line in printed.split()]
    print(f"{'seconds':<36} {'median':>8} {'least':>8} {'most':>8}")
    for name, values in times.items():
        print(f"{name:<36} {statistics.median(values):8.2f} {min(values):8.2f} {max(values):8.2f}")
    if asked.output:
        figures = {name: {"seconds": values, "median": statistics.median(values)} for name, values in times.items()}
        Path(asked.output).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
