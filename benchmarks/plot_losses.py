"""Draws the loss curves of a model's training runs into one picture.

python benchmarks/plot_losses.py runs/shapes docs/loss_curves.png
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

SMOOTHING = 5  # logged steps in a running mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder with one folder a run, each with a metrics.jsonl")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    args = parser.parse_args()
    runs = sorted(args.root.glob("*/metrics.jsonl"))
    if not runs:
        parser.error(f"{args.root} holds no run: no folder in it has a metrics.jsonl")
    columns = 3
    rows = -(-len(runs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4 * columns, 2.6 * rows), squeeze=False)
    for axis in axes.flat[len(runs) :]:
        axis.axis("off")
    for axis, path in zip(axes.flat, runs, strict=False):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        steps, losses = (np.array([record[name] for record in records]) for name in ("step", "loss"))
        axis.plot(steps, losses, color="0.8", linewidth=0.8)
        if len(losses) >= SMOOTHING:
            axis.plot(steps[SMOOTHING - 1 :], np.convolve(losses, np.ones(SMOOTHING) / SMOOTHING, "valid"))
        axis.set(title=path.parent.name, xlabel="step", ylabel="loss", yscale="log" if losses.min() > 0 else "linear")
        axis.grid(alpha=0.3)
    figure.tight_layout()
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.picture, dpi=80)


if __name__ == "__main__":
    main()
