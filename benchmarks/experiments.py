"""Write the tables and plots of docs/experiments.md from the runs of launch/ablations.sh.

    python benchmarks/experiments.py runs/ablations

stores what the finished runs found, video by video, in docs/experiments, one small file per run, and rewrites the page
from all stored runs, whatever machine they come from; without a folder of runs, from the stored ones alone. Only the
text between the page's two marks and the plots are rewritten; the tables name the runs that are missing. Intervals are
95%: Wilson's for fractions, bootstrap for paired differences (docs/metrics.md).
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ablation_results import (
    BORROWED,
    CONSISTENCY,
    SAMPLED,
    SCORES,
    SHARE,
    SHIPPED,
    TRAINED,
    WHOLE,
    Run,
    Runs,
    clip_rows,
    consistency_ratio,
    difference,
    error_ratio,
    keep,
    pooled,
    read_kept,
    read_runs,
    verdict,
)

BEGIN, END = "<!-- results: benchmarks/experiments.py writes from here -->", "<!-- to here -->"


def percent(value: Mapping[str, Any]) -> str:
    low, high = value["interval"]
    return f"{value['fraction']:.0%} ({low:.0%} to {high:.0%})"


def points(value: Mapping[str, Any]) -> str:
    low, high = value["interval"]
    return f"{100 * value['value']:+.0f} ({100 * low:+.0f} to {100 * high:+.0f})"


def decibels(value: Mapping[str, Any]) -> str:
    low, high = value["interval"]
    return f"{value['value']:+.2f} dB ({low:+.2f} to {high:+.2f})"


def share(value: Mapping[str, Any]) -> str:
    low, high = (100 * (end - 1) for end in value["interval"])
    return f"{100 * (value['value'] - 1):+.0f}% ({low:+.0f} to {high:+.0f}%)"


def listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " --- |" * (len(heads) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def prompts_table(
    runs: Runs, titles: Mapping[str, str], baseline: str, costs: Mapping[str, Callable[[Run], str]]
) -> str:
    """Write one row per run that scores videos, in the order of `titles`; `costs` gives the columns on compute."""
    rows, missing = [], []
    for name, title in titles.items():
        of_name = runs.get(name)
        if not of_name:
            missing.append(name)
            continue
        scores = [percent(pooled(of_name, score)) for score in (*SCORES, SHARE)]
        gap = None if name == baseline else difference(of_name, runs.get(baseline, {}), "all")
        of_seeds = " / ".join(f"{value:.0%}" for _, value in sorted(pooled(of_name, "all")["seeds"].items()))
        count = sum(len(run.scores()) for run in of_name.values())
        computed = [cost(of_name[min(of_name)]) for cost in costs.values()]
        row = (title, *computed, f"{listed(list(of_name))} ({count})", *scores, of_seeds)
        rows.append((*row, "" if gap is None else points(gap)))
    heads = (
        "",
        *costs,
        "seeds (videos)",
        *(f"{score} right" for score in (*SCORES, SHARE)),
        "all, by seed",
        "all, minus the first row",
    )
    return (table(heads, rows) if rows else "") + _missing(missing, bool(rows))


def consistency_table(runs: Runs) -> str:
    """Compare sampling settings by steadiness, which still tells them apart when all attributes are right."""
    rows = []
    for name, title in SAMPLED.items():
        gaps = [consistency_ratio(runs.get(name, {}), runs.get(SHIPPED, {}), kind) for kind in CONSISTENCY]
        if None in gaps:
            continue
        warping, flicker = ["", ""] if name == SHIPPED else [share(gap) for gap in gaps]
        means = [f"{1000 * gaps[0]['mean']:.2f}", f"{gaps[1]['mean']:.2f}"]
        rows.append((title, str(gaps[0]["count"]), means[0], warping, means[1], flicker))
    first = "relative to the first row"
    heads = ("", "videos", "warping error, times 1000", first, "flicker of the background, levels", first)
    return table(heads, rows) if len(rows) > 1 else ""


def _missing(names: Sequence[str], after_table: bool) -> str:
    if not names:
        return ""
    stems = dict.fromkeys(name.rpartition("_")[0] if any(c.isdigit() for c in name) else name for name in names)
    stems = dict.fromkeys("sampler" if stem.startswith("sampler_") else stem for stem in stems)
    text = f"No stored run: {', '.join(names)}. To run them: `launch/ablations.sh --only {' '.join(stems)}`"
    return ("\n\n" if after_table else "") + text


def denoising_table(runs: Runs) -> str:
    """Compare stages with the same conditioning to those of the whole setting."""
    rows = []
    for name in TRAINED:
        for stage in ("cascade_4", "cascade_8"):
            gaps = [error_ratio(runs.get(name, {}), runs.get(WHOLE, {}), stage, kind) for kind in ("latents", "change")]
            if name in (WHOLE, "one_stage") or None in gaps or stage in BORROWED.get(name, ()):
                continue
            seeds = f"{listed(list(gaps[0]['seeds']))} ({gaps[0]['count']})"
            rows.append((TRAINED[name], stage, seeds, *(share(gap) for gap in gaps)))
    heads = ("", "stage", "seeds (clips)", "error of the latents", "error of their frame-to-frame change")
    return table(heads, rows) if rows else "No stored run. To run them: `launch/ablations.sh`"


def temporal_table(runs: Runs) -> str:
    rows = []
    for seed, rate, values in clip_rows(runs, "temporal"):
        at = values["image_decoder"]["decoded"]
        clips = runs["temporal"][seed].clips["settings"]["clips"]
        made = [f"{at[kind]:.2f} dB" for kind in ("blended", "warped", "upsampled")]
        rows.append((rate, f"{seed} ({clips})", *made, decibels(at["warped_difference"]), decibels(at["difference"])))
    heads = ("factor", "seed (clips)", "blending", "warping", "full module", "warping - blending", "full - blending")
    return table(heads, rows) if rows else _missing(["temporal"], False)


def decoder_table(runs: Runs) -> str:
    rows = []
    for seed, rate, values in clip_rows(runs, "decoder"):
        clips = runs["decoder"][seed].clips["settings"]["clips"]
        image, video = values["image_decoder"], values["video_decoder"]
        psnr, flicker = ([f"{of[what]:.1f}" for of in (image, video)] for what in ("psnr", "flicker"))
        differences = (decibels(values["psnr_difference"]), share(values["flicker_ratio"]))
        rows.append((rate, f"{seed} ({clips})", f"{psnr[0]} / {psnr[1]} dB", " / ".join(flicker), *differences))
    heads = ("rate", "seed (clips)", "PSNR, image / video decoder", "flicker, image / video", "PSNR", "flicker")
    return table(heads, rows) if rows else _missing(["decoder"], False)


def claims_table(runs: Runs) -> str:
    """List the paper's claims with what was measured here."""

    def of_scores(claim: str, ours: str, theirs: str, score: str, unlike: str) -> tuple[str, ...]:
        gap = difference(runs.get(ours, {}), runs.get(theirs, {}), score)
        if gap is None:
            return claim, "no stored run", f"{score} right, {unlike}", "", ""
        by_seed = " / ".join(f"{100 * value:+.0f}" for _, value in sorted(gap["seeds"].items()))
        what = f"{score} right, {unlike}: {points(gap)} points; by seed {by_seed}"
        return claim, verdict([gap["interval"]]), what, listed(list(gap["seeds"])), f"{gap['count']} videos"

    def of_errors(claim: str, kind: str, what: str) -> tuple[str, ...]:
        gap = error_ratio(runs.get(WHOLE, {}), runs.get("no_reference", {}), "cascade_4", kind)
        if gap is None:
            return claim, "no stored run", what, "", ""
        low, high = gap["interval"]
        by_seed = " / ".join(f"{100 * (value - 1):+.0f}%" for _, value in sorted(gap["seeds"].items()))
        measured = f"{what}: {share(gap)}; by seed {by_seed}"
        return claim, verdict([(-high, -low)], -1.0), measured, listed(list(gap["seeds"])), f"{gap['count']} clips"

    def of_clips(claim: str, part: str, what: str, value: Callable, text: Callable, better: float) -> tuple[str, ...]:
        """better: 1 where a higher value is better, -1 where a lower one is, as for a ratio to be below 1."""
        found = [(seed, rate, value(values)) for seed, rate, values in clip_rows(runs, part)]
        if not found:
            return claim, "no stored run", what, "", ""
        neutral = 0.0 if better > 0 else -1.0
        intervals = [tuple(sorted(better * end for end in at["interval"])) for _, _, at in found]
        measured = "; ".join(f"{rate} {text(at)}" for _, rate, at in found)
        clips = runs[part][found[0][0]].clips["settings"]["clips"]
        seeds = listed({seed for seed, *_ in found})
        return claim, verdict(intervals, neutral), f"{what}: {measured}", seeds, f"{clips} clips a seed"

    rows = [
        of_scores("(a) the reference improves fidelity", WHOLE, "no_reference", "picture", "with minus without"),
        of_errors("(a) the same, lowest stage", "latents", "denoising error, with relative to without"),
        of_scores(
            "(b) with it the model learns dynamics better", WHOLE, "no_reference", "motion", "with minus without"
        ),
        of_errors(
            "(b) the same, lowest stage", "change", "error of the frame-to-frame change, with relative to without"
        ),
        of_scores(
            "(c) the cascade is more efficient than one stage", WHOLE, "one_stage", "all", "cascade minus one stage"
        ),
        of_scores("(c) the same, attributes one by one", WHOLE, "one_stage", SHARE, "cascade minus one stage"),
        of_clips(
            "(d) flow beats blending in time",
            "temporal",
            "PSNR to the decoded true latents, full module minus blending",
            lambda values: values["image_decoder"]["decoded"]["difference"],
            decibels,
            1.0,
        ),
        of_clips(
            "(e) a decoder trained on video alone beats the image decoder",
            "decoder",
            "flicker of the video decoder relative to the image decoder",
            lambda values: values["flicker_ratio"],
            share,
            -1.0,
        ),
        of_clips(
            "(e) the same, by PSNR",
            "decoder",
            "video decoder minus image decoder",
            lambda values: values["psnr_difference"],
            decibels,
            1.0,
        ),
    ]
    return table(("claim", "result", "effect", "seeds", "measured on"), rows)


def report(runs: Runs, pictures: Sequence[tuple[str, str]]) -> str:
    """The page's part that is written here. pictures: (file, caption) of those that were drawn."""
    costs = {
        "TFLOP to train": lambda run: f"{run.training_flops / 1e12:.1f}",
        "GFLOP a video": lambda run: f"{run.sampling_flops / 1e9:.0f}",
    }
    sampling = {"GFLOP a video": costs["GFLOP a video"]}
    parts = [
        "### Claims",
        claims_table(runs),
        "### Trained ablations",
        prompts_table(runs, TRAINED, WHOLE, costs),
        "### Denoising held-out clips",
        denoising_table(runs),
        "### Sampling settings of the embedded model",
        prompts_table(runs, SAMPLED, SHIPPED, sampling),
        *filter(None, [consistency_table(runs)]),
        "### Temporal upsampling",
        temporal_table(runs),
        "### Decoders",
        decoder_table(runs),
        *(f"![{caption}]({file})" for file, caption in pictures),
    ]
    return "\n\n".join(parts)


def write_page(page: Path, text: str) -> None:
    """Puts the text between the page's marks.

    Raises:
      ValueError: the page has no such marks.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks the marks {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", help="the --root of launch/ablations.sh, to keep its runs")
    parser.add_argument("--kept", type=Path, default=Path("docs/experiments"), help="folder of what is kept of runs")
    parser.add_argument("--page", type=Path, default=Path("docs/experiments.md"))
    args = parser.parse_args()
    jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))  # nothing is computed, only counted
    from experiments_plots import draw

    try:
        if args.root:
            keep(read_runs(args.root), args.kept)
        runs = read_kept(args.kept)
        write_page(args.page, report(runs, draw(runs, args.page.parent)))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
