"""Sentence to video, stage by stage: compiling, first run, next runs, memory; and how they grow.

    python benchmarks/sample.py [--batch 1 8] [--rounds 5] [--steps 20] [--sampler ddim] [--output sample.json]
    python benchmarks/sample.py --scaling [--frames 8 16 32 48] [--batch 1 2 4 8] [--plot docs/sampling_scaling.png]

Each batch has a process of its own, so that its peak memory is its own; it includes compiling. Programs are compiled
one after another here and waited for one by one, to be timed by themselves; the pipeline does both side by side.

`--scaling` varies the base frames that the cascade makes, though a model is trained for one number of them: it is the
cost that is measured, which no weight changes, not what the video looks like. Memory there is that of a stage's largest
program (arguments, results and temporaries, as XLA plans them), and programs come from the compilation cache.
"""

import argparse
import dataclasses
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import platforms
from side_by_side import write_json

PROMPT = "a small red circle moving right slowly on a gray background"


def measure(asked: argparse.Namespace, batch: int, frames: int | None) -> dict[str, Any]:
    """One model called `rounds` + 1 times, with `batch` prompts and `frames` base frames (None: the model's own)."""
    from measured import MeasuredPrograms, peak_memory

    from videogen_jax.runtime import compilation_cache
    from videogen_jax.sampling.pipeline import VideoGenPipeline

    if asked.scaling:
        compilation_cache.enable()
    pipeline = VideoGenPipeline.from_pretrained(asked.model)
    if frames is not None:
        pipeline.index = dataclasses.replace(pipeline.index, num_frames=frames)
    pipeline.programs = measured = MeasuredPrograms()
    totals, calls = [], []
    for seed in range(asked.rounds + 1):
        before = {name: len(program["seconds"]) for name, program in measured.programs.items()}
        begun = time.perf_counter()
        pipeline([PROMPT] * batch, seed=seed, steps=asked.steps, sampler=asked.sampler)
        totals.append(time.perf_counter() - begun)
        stages: dict[str, float] = {}
        for name, program in measured.programs.items():
            spent = sum(program["seconds"][before.get(name, 0) :])
            stages[stage_of(name)] = stages.get(stage_of(name), 0.0) + spent
        calls.append(stages)
    return {
        "batch": batch,
        "base_frames": pipeline.index.num_frames,
        "totals": totals,
        "stages": calls,
        "programs": measured.programs,
        "peak_memory": peak_memory(),
    }


def stage_of(program: str) -> str:
    """The stage that a program belongs to: `cascade_4_start` is of `cascade_4`."""
    if program in ("image", "reference_text"):
        return "reference"
    return program.removesuffix("_start").removesuffix("_finish")


def in_own_process(asked: argparse.Namespace, batch: int, frames: int | None = None) -> dict[str, Any]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, asked, batch, frames).result()


def show(run: dict[str, Any]) -> None:
    from measured import median

    print(f"batch {run['batch']}, {run['base_frames']} base frames")
    print(
        f"  {'stage':<20} {'compile s':>9} {'first s':>8} {'next s':>8} {'least':>8} {'most':>8} {'temporary MB':>13}"
    )
    for stage in run["stages"][0]:
        own = [program for name, program in run["programs"].items() if stage_of(name) == stage]
        compiling, temporary = sum(p["compile_seconds"] for p in own), max(p["temporary_bytes"] for p in own) / 1e6
        first, *later = [call[stage] for call in run["stages"]]
        times = f"{median(later):8.3f} {min(later):8.3f} {max(later):8.3f}"
        print(f"  {stage:<20} {compiling:9.2f} {first:8.3f} {times} {temporary:13.1f}")
    compiling = sum(program["compile_seconds"] for program in run["programs"].values())
    later, first = run["totals"][1:], sum(run["stages"][0].values())  # the first call also counts operations
    times = f"{first:8.3f} {median(later):8.3f} {min(later):8.3f} {max(later):8.3f}"
    print(f"  {'all':<20} {compiling:9.2f} {times}")
    print("  peak memory: " + ", ".join(f"{name} {held:.2f} GB" for name, held in run["peak_memory"].items()))


def growth(runs: list[dict[str, Any]], over: str) -> dict[str, Any]:
    """Seconds a video call and megabytes of sampling and of decoding, over `over`, with the lines fitted to them."""
    from measured import fit_line, median

    def memory(run: dict[str, Any], decoding: bool) -> float:
        own = [p for name, p in run["programs"].items() if (name == "decode") == decoding]
        return max(p["least_bytes"] + p["temporary_bytes"] for p in own) / 1e6

    def seconds(run: dict[str, Any], decoding: bool) -> float:
        calls = run["stages"][1:]
        return median([sum(s for name, s in call.items() if (name == "decode") == decoding) for call in calls])

    x = [run[over] for run in runs]
    lines = {
        "sampling seconds": [seconds(run, False) for run in runs],
        "decoding seconds": [seconds(run, True) for run in runs],
        "sampling megabytes": [memory(run, False) for run in runs],
        "decoding megabytes": [memory(run, True) for run in runs],
    }
    fits = {name: fit_line(x, y) for name, y in lines.items()}
    print(f"\n{over}: {', '.join(map(str, x))}")
    for name, (slope, intercept, r2) in fits.items():
        values = ", ".join(f"{value:.3g}" for value in lines[name])
        print(f"  {name:<20} {values}: {slope:z.3f} each {intercept:+.2f}, R^2 {r2:.4f}")
    return {"x": x, "lines": lines, "fits": fits}


def plot(path: str, grown: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(grown), figsize=(4.2 * len(grown), 6), squeeze=False, layout="constrained")
    labels = {"base_frames": "base frames", "batch": "videos in the batch"}
    for column, (over, one) in enumerate(grown.items()):
        for row, unit in enumerate(("seconds", "megabytes")):
            axis = axes[row, column]
            for part, colour in (("sampling", "#1f6fb4"), ("decoding", "#d9792b")):
                slope, intercept, r2 = one["fits"][f"{part} {unit}"]
                axis.plot(one["x"], one["lines"][f"{part} {unit}"], "o", color=colour)
                ends = [0, max(one["x"])]
                label = f"{part}: {slope:z.2f} each {intercept:+.1f}, R² {r2:.3f}"
                axis.plot(ends, [slope * x + intercept for x in ends], color=colour, label=label, linewidth=1)
            axis.set(xlabel=labels[over], ylabel="seconds" if row == 0 else "MB of the largest program")
            axis.set_xlim(left=0)
            axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
            axis.legend(fontsize=8, frameon=False, loc="upper left")
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.25)
    figure.savefig(path, dpi=110)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    platforms.add_platform(parser)
    parser.add_argument("--model", help="a model folder; left out, the embedded model")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of every stage; left out, the model's own")
    parser.add_argument("--sampler", help="of every stage; left out, the model's own")
    parser.add_argument("--scaling", action="store_true", help="over the frames, and over --batch")
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 16, 32, 48], help="base frames of --scaling")
    parser.add_argument("--plot", help="a picture of --scaling")
    parser.add_argument("--output", help="a .json file for the figures")
    asked = parser.parse_args()
    if asked.rounds < 1:
        parser.error(f"--rounds is {asked.rounds}, but must be at least 1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    runs = []
    for batch in asked.batch:
        runs.append(in_own_process(asked, batch))
        show(runs[-1])
    figures: dict[str, Any] = {"runs": runs}
    if asked.scaling:
        by_frames = [in_own_process(asked, 1, frames) for frames in asked.frames]
        figures["scaling"] = {"base_frames": growth(by_frames, "base_frames"), "batch": growth(runs, "batch")}
        if asked.plot:
            plot(asked.plot, figures["scaling"])
    write_json(asked.output, figures)


if __name__ == "__main__":
    main()
