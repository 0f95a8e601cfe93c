"""The plots of docs/experiments.md, in Okabe and Ito's colours (2008), which the colour-blind can tell apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from ablation_results import (
    SAMPLED,
    SHARE,
    SHIPPED,
    TRAINED,
    WHOLE,
    Runs,
    clip_rows,
    consistency_ratio,
    pooled,
)

STYLE = {
    "picture": ("#0072B2", "o"),
    "motion": ("#D55E00", "s"),
    "all": ("#000000", "D"),
    SHARE: ("#009E73", "^"),
}
STEADINESS = {
    "warping_error": ("warping error", "#0072B2", "o"),
    "still_flicker": ("flicker of the background", "#D55E00", "s"),
}
KINDS = {
    "blended": ("linear blending", "#000000", "^"),
    "warped": ("warping alone", "#D55E00", "s"),
    "upsampled": ("full module", "#0072B2", "o"),
}


def draw(runs: Runs, folder: Path) -> list[tuple[str, str]]:
    """Draws what there are runs for; returns the files' names and captions."""
    drawn = []
    for file, titles, plot, caption in (
        ("experiments_trained.png", TRAINED, _trained, "Trained ablations: share of videos that are right"),
        (
            "experiments_sampling.png",
            SAMPLED,
            _sampled,
            "Sampling settings. Left: videos right in all attributes. Right: steadiness relative to those shipped",
        ),
    ):
        found = {name: runs[name] for name in titles if runs.get(name)}
        if len(found) > 1:
            _save(plot(found), folder / file)
            drawn.append((file, caption))
    if runs.get("temporal") or runs.get("decoder"):
        _save(_clips(runs), folder / "experiments_clips.png")
        drawn.append(("experiments_clips.png", "Left: temporal upsampling. Right: the decoders, with 95% intervals"))
    return drawn


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _trained(found: Runs) -> plt.Figure:
    figure, axis = plt.subplots(figsize=(9, 1.2 + 0.65 * len(found)), layout="constrained")
    names = list(found)
    for offset, (score, (colour, marker)) in zip((-0.27, -0.09, 0.09, 0.27), STYLE.items(), strict=True):
        for place, name in enumerate(names):
            at = pooled(found[name], score)
            low, high = at["interval"]
            axis.plot([low, high], [place + offset] * 2, color=colour, linewidth=2)
            label = f"{score} right" if place == 0 else None
            axis.plot(at["fraction"], place + offset, marker, color=colour, markersize=6, label=label, linestyle="")
            for value in at["seeds"].values() if len(at["seeds"]) > 1 else ():
                axis.plot(value, place + offset, "|", color=colour, markersize=8)
        if WHOLE in found:
            axis.axvline(pooled(found[WHOLE], score)["fraction"], color=colour, linewidth=0.8, linestyle=":")
    _name_rows(axis, [TRAINED[name] for name in names])
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel("share of videos; of attributes, the mean over videos")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(STYLE), frameon=False)
    return figure


def _name_rows(axis: plt.Axes, titles: Sequence[str]) -> None:
    axis.set_yticks(range(len(titles)), [title.split(":")[0] for title in titles])
    axis.set_ylim(len(titles) - 0.5, -0.5)


def _sampled(found: Runs) -> plt.Figure:
    size = (9, 1.4 + 0.35 * len(found))
    figure, (left, right) = plt.subplots(1, 2, figsize=size, layout="constrained", sharey=True)
    lowest = 1.0
    for place, (name, of_name) in enumerate(found.items()):
        at = pooled(of_name, "all")
        low, high = at["interval"]
        lowest = min(lowest, low)
        left.plot([low, high], [place] * 2, color="black", linewidth=2)
        left.plot(at["fraction"], place, "D", color="black", markersize=6)
        for offset, (kind, (title, colour, marker)) in zip((-0.12, 0.12), STEADINESS.items(), strict=True):
            if name == SHIPPED or (at := consistency_ratio(of_name, found.get(SHIPPED, {}), kind)) is None:
                continue
            right.plot(at["interval"], [place + offset] * 2, color=colour, linewidth=2)
            right.plot(at["value"], place + offset, marker, color=colour, markersize=6, linestyle="", label=title)
    right.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
    _name_rows(left, [SAMPLED[name] for name in found])
    left.set_xlim(lowest - 0.03, 1.01)
    left.set_xlabel("share right in all (truncated axis)")
    right.set_xlabel("relative to as shipped; lower is steadier")
    for axis in (left, right):
        axis.grid(axis="x", alpha=0.3)
    handles = dict(zip(*reversed(right.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(STEADINESS), frameon=False)
    return figure


def _clips(runs: Runs) -> plt.Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    temporal = list(clip_rows(runs, "temporal"))
    for place, (_, _, values) in enumerate(temporal):
        at = values["image_decoder"]["decoded"]
        for number, (kind, (title, colour, marker)) in enumerate(KINDS.items()):
            where, label = place + 0.2 * (number - 1), title if place == 0 else None
            left.plot(where, at[kind], marker, color=colour, markersize=8, label=label, linestyle="")
            left.annotate(
                f"{at[kind]:.1f}", (where, at[kind]), (0, 7), textcoords="offset points", ha="center", fontsize=8
            )
    left.set_xticks(range(len(temporal)), [f"{rate}, seed {seed}" for seed, rate, _ in temporal])
    if temporal:
        heights = [values["image_decoder"]["decoded"][kind] for _, _, values in temporal for kind in KINDS]
        left.set_xlim(-0.6, len(temporal) - 0.4)
        left.set_ylim(min(heights) - 1.5, max(heights) + 3)
        left.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", columnspacing=0.8)
    left.set_ylabel("PSNR to the decoded true latents, dB")
    decoder = list(clip_rows(runs, "decoder"))
    for place, (_, _, values) in enumerate(decoder):
        _interval(right, place, values["flicker_ratio"])
    right.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
    right.set_xticks(range(len(decoder)), [f"{rate}, seed {seed}" for seed, rate, _ in decoder])
    right.set_xlim(-0.6, max(len(decoder) - 0.4, 0.6))
    right.set_ylim(0, 1.15)
    right.set_ylabel("flicker, video to image decoder")
    return figure


def _interval(axis: plt.Axes, place: int, at: Mapping[str, Any]) -> None:
    low, high = at["interval"]
    axis.plot([place] * 2, [low, high], color="#D55E00", linewidth=2)
    axis.plot(place, at["value"], "s", color="#D55E00")
    axis.annotate(f"{at['value']:.2f}", (place, at["value"]), (8, -3), textcoords="offset points", fontsize=8)
