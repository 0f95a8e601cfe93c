"""What launch/ablations.sh has measured: its runs, read, kept, and compared with what they are to be compared to."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import compute

from videogen_jax.metrics.statistics import bootstrap, mean_difference, ratio_of_means, tally
from videogen_jax.runtime.files import write_atomically
from videogen_jax.shapes.reader import IMAGE_ATTRIBUTES

WHOLE, SHIPPED = "whole", "as_shipped"  # what trained ablations, and other ways of sampling, are compared to
MOTION_ATTRIBUTES = ("motion_kind", "direction", "speed")
SCORES = {"picture": IMAGE_ATTRIBUTES, "motion": MOTION_ATTRIBUTES, "all": (*IMAGE_ATTRIBUTES, *MOTION_ATTRIBUTES)}
SHARE = "attributes"  # no yes or no: how many of what a caption says are right, of as many as it says
TRAINED = {  # name of the run -> what is other than in the whole setting
    WHOLE: "cascade of 4 and 8: reference on every frame, text, noise augmentation",
    "no_reference": "no reference image",
    "reference_first": "reference on the first frame alone",
    "random_reference": "trained with a random frame as the reference",
    "no_text": "no text",
    "no_augmentation": "no noise augmentation",
    "one_stage": "one stage at full resolution, equal training compute",
}
SAMPLED = {  # name of the run -> how the embedded model is sampled
    SHIPPED: "as shipped: text guidance 3, reference guidance 1.5; DPM-Solver++ with 20, 12 and 10 steps",
    "guidance_1.0": "text guidance 1 in the lowest stage",
    "guidance_2.0": "text guidance 2",
    "guidance_6.0": "text guidance 6",
    "reference_guidance_1.0": "reference guidance 1 in the lowest stage",
    "reference_guidance_3.0": "reference guidance 3",
    "steps_5": "5 steps in each stage",
    "steps_10": "10 steps in each stage",
    "steps_20": "20 steps in each stage",
    "sampler_ddim": "DDIM",
    "sampler_euler": "Euler",
}
CONSISTENCY = ("warping_error", "still_flicker")
CLIPS = ("temporal", "decoder")  # runs that are measured on clips of the ground truth
BORROWED = {"no_augmentation": ("cascade_4",)}  # stages that a run takes from the whole setting's of its seed

Denoising = dict[str, dict[str, list[float]]]  # stage -> "latents" or "change" -> the error of each clip


@dataclasses.dataclass(frozen=True)
class Run:
    """What is kept of one finished evaluation, enough for all tables and plots.

    right: of each video, by its key, whether what the caption says is right, attribute by attribute.
    consistency: of each video the `CONSISTENCY` that could be measured (docs/metrics.md).
    denoising: denoising errors, for each clip the mean over timesteps (benchmarks/denoising.py).
    clips: the section of `metrics.json` that the temporal or the decoder part has.
    training_flops: of all steps of the stages that were trained; 0 where none was.
    sampling_flops: of the cascade's networks for one video; 0 where none was made.
    """

    name: str
    seed: int
    right: Mapping[str, Mapping[str, bool]] = dataclasses.field(default_factory=dict)
    consistency: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    denoising: Denoising = dataclasses.field(default_factory=dict)
    clips: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training_flops: float = 0.0
    sampling_flops: float = 0.0

    def scores(self) -> dict[str, dict[str, float]]:
        """For each video whether picture, motion and all that its caption says are right; and `SHARE`, in [0, 1]."""
        return {
            key: {score: all(right[name] for name in names if name in right) for score, names in SCORES.items()}
            | {SHARE: sum(right.values()) / len(right)}
            for key, right in self.right.items()
        }


Runs = dict[str, dict[int, Run]]  # name -> seed -> run


def read_runs(root: Path) -> Runs:
    """The finished evaluations below `root`, the --root of launch/ablations.sh.

    Raises:
      ValueError: a file of results is none.
    """
    runs: Runs = {}
    for path in sorted(root.glob("*/seed_*/evaluation/metrics.json")):
        folder = path.parent.parent
        if not (folder / "evaluated").exists():
            continue  # it has only begun
        try:
            run = _read_run(folder.parent.name, folder, json.loads(path.read_text()))
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path} is no result of launch/ablations.sh: {error}") from error
        runs.setdefault(run.name, {})[run.seed] = run
    return runs


def _read_run(name: str, folder: Path, metrics: Mapping[str, Any]) -> Run:
    seed = int(folder.name.removeprefix("seed_"))
    if name in CLIPS:
        return Run(name, seed, clips=metrics[name])
    prompts = metrics["prompts"]
    whole = folder.parent.parent / WHOLE / folder.name
    workdirs = sorted([*folder.glob("cascade_*"), *(whole / stage for stage in BORROWED.get(name, ()))])
    return Run(
        name,
        seed,
        right={record["key"]: record["right"] for record in prompts["results"]},
        consistency={record["key"]: _measured(record["consistency"]) for record in prompts["results"]},
        denoising=_read_denoising(folder / "denoising.json"),
        training_flops=compute.run_flops(workdirs),
        sampling_flops=compute.sampling_flops(metrics["model"], prompts["settings"]["sampling"]),
    )


def _measured(consistency: Mapping[str, float | None]) -> dict[str, float]:
    return {kind: _short(consistency[kind]) for kind in CONSISTENCY if consistency.get(kind) is not None}


def _short(value: float) -> float:
    """Six digits of it, which is more than is measured."""
    return float(f"{value:.6g}")


def _read_denoising(path: Path) -> Denoising:
    if not path.exists():
        return {}
    return {
        stage: {
            kind: [
                _short(sum(of_clip) / len(of_clip))
                for of_clip in zip(*(at[kind] for at in errors.values()), strict=True)
            ]
            for kind in ("latents", "change")
        }
        for stage, errors in json.loads(path.read_text())["errors"].items()
    }


def keep(runs: Runs, folder: Path) -> None:
    """Writes each run as folder/NAME_SEED.json, in the place of what is kept of the same name and seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for of_name in runs.values():
        for run in of_name.values():
            content = json.dumps(dataclasses.asdict(run), separators=(",", ":")) + "\n"
            path = folder / f"{run.name}_{run.seed}.json"
            write_atomically(path, lambda temporary, content=content: temporary.write_text(content))


def read_kept(folder: Path) -> Runs:
    """What `keep` wrote.

    Raises:
      ValueError: a file is none that it wrote, or there is none at all.
    """
    runs: Runs = {}
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ValueError(f"no finished run is kept in {folder}; give the folder of launch/ablations.sh's runs")
    for path in paths:
        try:
            run = Run(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is no run that benchmarks/experiments.py kept: {error}") from error
        runs.setdefault(run.name, {})[run.seed] = run
    return runs


def pooled(of_name: Mapping[int, Run], score: str) -> dict[str, Any]:
    """A `tally` of one score over all seeds, and `seeds`: the fraction for each.

    Of `SHARE` there is no count of right ones, and the interval is the bootstrap's.
    """
    columns = {seed: [video[score] for video in run.scores().values()] for seed, run in of_name.items()}
    values = [right for column in columns.values() for right in column]
    if score == SHARE:
        mean = bootstrap(lambda x: x.mean(axis=-1), values)
        found = {"fraction": mean["value"], "count": len(values), "interval": mean["interval"]}
    else:
        found = tally(values)
    return {**found, "seeds": {seed: sum(column) / len(column) for seed, column in columns.items()}}


def difference(of_name: Mapping[int, Run], baseline: Mapping[int, Run], score: str) -> dict[str, Any] | None:
    """Of the fractions right, paired by seed and caption, with the interval over pairs; None without common ones.

    `seeds` has the difference for each seed.
    """
    pairs: dict[int, list[tuple[bool, bool]]] = {}
    for seed in sorted(set(of_name) & set(baseline)):
        ours, theirs = of_name[seed].scores(), baseline[seed].scores()
        common = [(ours[key][score], theirs[key][score]) for key in sorted(set(ours) & set(theirs))]
        if common:
            pairs[seed] = common
    if not pairs:
        return None
    ours, theirs = zip(*(pair for of_seed in pairs.values() for pair in of_seed), strict=True)
    seeds = {seed: sum(a - b for a, b in of_seed) / len(of_seed) for seed, of_seed in pairs.items()}
    return {**mean_difference(ours, theirs), "seeds": seeds, "count": len(ours)}


def error_ratio(
    of_name: Mapping[int, Run], baseline: Mapping[int, Run], stage: str, kind: str
) -> dict[str, Any] | None:
    """Return the ratio of the mean denoising errors, paired by seed and clip; None without common clips.

    `seeds` has the ratio for each seed.
    """
    pairs = {}
    for seed in sorted(set(of_name) & set(baseline)):
        both = [run.denoising.get(stage, {}).get(kind) for run in (of_name[seed], baseline[seed])]
        if None not in both:
            pairs[seed] = both
    if not pairs:
        return None
    ours, theirs = ([error for both in pairs.values() for error in both[which]] for which in (0, 1))
    seeds = {seed: sum(a) / sum(b) for seed, (a, b) in pairs.items()}
    return {**ratio_of_means(ours, theirs), "seeds": seeds, "count": len(ours)}


def consistency_ratio(of_name: Mapping[int, Run], baseline: Mapping[int, Run], kind: str) -> dict[str, Any] | None:
    """Of the means of one of `CONSISTENCY`, paired by seed and caption; None where no pair was measured.

    `mean` is the numerator.
    """
    pairs = [
        (ours[kind], theirs[kind])
        for seed in sorted(set(of_name) & set(baseline))
        for key, ours in of_name[seed].consistency.items()
        if kind in ours and kind in (theirs := baseline[seed].consistency.get(key, {}))
    ]
    if not pairs:
        return None
    ours, theirs = zip(*pairs, strict=True)
    return {**ratio_of_means(ours, theirs), "mean": sum(ours) / len(ours), "count": len(ours)}


def verdict(intervals: Sequence[tuple[float, float]], neutral: float = 0.0) -> str:
    """What intervals of one gain say of a claim: each must be on the same side of `neutral`."""
    if not intervals:
        return "no stored run"
    if all(low > neutral for low, _ in intervals):
        return "holds"
    if all(high < neutral for _, high in intervals):
        return "does not hold: the opposite"
    return "not shown: the interval includes zero"


def clip_rows(runs: Runs, name: str) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """(seed, rate, what was measured) of the temporal or the decoder part."""
    for seed, run in sorted(runs.get(name, {}).items()):
        for rate, values in run.clips.items():
            if rate != "settings":
                yield seed, rate, values
