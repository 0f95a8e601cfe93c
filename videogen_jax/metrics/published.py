"""The measures that take a feature network with weights from elsewhere: which there are, what each needs, its value.

What is kept of each video lies in a file of its own, so that an evaluation that was stopped goes on where it was, and
statistics are taken over the files one after another: the features of all videos are never in memory together.
"""

import functools
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from videogen_jax.metrics import feature_networks
from videogen_jax.metrics.feature_networks import Extractor
from videogen_jax.metrics.frechet import BlockMoments, frechet_estimate
from videogen_jax.metrics.inception_score import InceptionScore
from videogen_jax.metrics.networks import c3d, i3d
from videogen_jax.metrics.statistics import bootstrap
from videogen_jax.runtime.files import write_atomically
from videogen_jax.weights.hub import EMBEDDED_CLASSIFIER, resolve


class Measure(NamedTuple):
    """A measure's title for tables, the network whose weights it needs, what these are, if it takes real videos too."""

    title: str
    network: str
    weights: str
    to_real: bool = False


MEASURES = {
    "fvd": Measure(
        "Fréchet video distance (I3D)", "i3d", "I3D's Kinetics-400 weights, i3d_torchscript.pt for one", True
    ),
    "fid": Measure(
        "Fréchet inception distance", "inception", "pt_inception-2015-12-05-6726825d.pth of pytorch-fid", True
    ),
    "video_inception_score": Measure("Inception score on video (C3D)", "c3d", "C3D's weights fine-tuned on UCF-101"),
    "clipsim": Measure("CLIPSIM, times 100", "clip", "a folder as clip-vit-base-patch32 is on the hub"),
    "clip_consistency": Measure("CLIP frame consistency, times 100", "clip", "as for clipsim"),
    "shapes_frechet_distance": Measure(
        "shapes Fréchet distance (not FVD)",
        "shapes_classifier",
        f"{EMBEDDED_CLASSIFIER} or a folder with another classifier that configs/shapes/classifier.py trained",
        True,
    ),
}
NETWORKS = tuple(dict.fromkeys(measure.network for measure in MEASURES.values()))
DISTANCE_NETWORKS = tuple(measure.network for measure in MEASURES.values() if measure.to_real)
LEAST_FRAMES = {"i3d": i3d.FRAMES, "c3d": c3d.FRAMES, "clip": 2}
BLOCKS = 10


def not_measured(weights: Mapping[str, str], has_real: bool = True) -> dict[str, str]:
    """For each measure whose network has no weights, or that lacks real videos, what to pass.

    Args:
      weights: network -> path, "" for none; measures of other networks are no measures of this evaluation.
      has_real: whether there are real videos to take distances to.
    """
    lacking = {}
    for name, measure in MEASURES.items():
        if measure.network not in weights:
            continue
        needed = []
        if not weights[measure.network]:
            needed.append(f"--config.weights.{measure.network}=PATH, {measure.weights}")
        if measure.to_real and not has_real:
            needed.append("--config.real.folder=FOLDER, real videos that the distance is taken to")
        if needed:
            lacking[name] = f"pass {' and '.join(needed)} (docs/metrics.md)"
    return lacking


class PublishedMeasures:
    """The feature networks that have weights, and what they say of each video.

    Args:
      weights: network -> path, "" or left out for none, for the shapes classifier EMBEDDED_CLASSIFIER, too; and
        `c3d_mean`.
      folder: where features are kept, in a folder for each network and its weights. It is that of one model and way of
        sampling: the keys of its videos name no more.
      fvd_protocol: of I3D; see `feature_networks.i3d_extractor`.

    Raises:
      ValueError: a path does not exist. Whether the weights fit shows when the network is first needed.
    """

    def __init__(self, weights: Mapping[str, str], folder: Path, fvd_protocol: str):
        self._load: dict[str, Callable[[], Extractor]] = {}
        self._folders: dict[str, Path] = {}
        self.identities: dict[str, str] = {}
        if fvd_protocol not in i3d.EPSILONS:
            raise ValueError(f"config.fvd_protocol is {fvd_protocol!r}, but must be one of {', '.join(i3d.EPSILONS)}")
        if weights.get("shapes_classifier") == EMBEDDED_CLASSIFIER:
            weights = {**weights, "shapes_classifier": resolve(EMBEDDED_CLASSIFIER)}
        for network in NETWORKS:
            if not weights.get(network):
                continue
            extra = {"i3d": (fvd_protocol,), "c3d": (weights["c3d_mean"],)}.get(network, ())
            files = [weights[network], *([extra[0]] if network == "c3d" and extra[0] else [])]
            for path in files:
                if not Path(path).exists():
                    raise ValueError(f"config.weights.{network} is {path}, which does not exist")
            self.identities[network] = _identity(files, extra if network == "i3d" else ())
            self._folders[network] = folder / f"{network}-{self.identities[network]}"
            build = getattr(feature_networks, f"{network}_extractor")
            self._load[network] = functools.cache(functools.partial(build, weights[network], *extra))

    @property
    def networks(self) -> tuple[str, ...]:
        """Those that have weights."""
        return tuple(self._load)

    def load(self) -> None:
        """Reads all weights, so that what does not fit is told before any video is made. ValueError: names the file."""
        for load in self._load.values():
            load()

    def has(self, key: str, networks: Iterable[str] | None = None) -> bool:
        """Whether every network, or each of `networks`, has seen the video."""
        return all(self._path(network, key).is_file() for network in networks or self._load)

    def add(
        self,
        keys: Sequence[str],
        captions: Sequence[str],
        videos: Sequence[np.ndarray],
        networks: Iterable[str] | None = None,
    ) -> None:
        """Keeps what the networks, or those of `networks`, say of videos, uint8 `(T, H, W, 3)` each, that are new."""
        for network in networks or self._load:
            load = self._load[network]
            new = [i for i, key in enumerate(keys) if not self._path(network, key).is_file()]
            if not new:
                continue
            found = load()([videos[i] for i in new], [captions[i] for i in new])
            for i, arrays in zip(new, found, strict=True):
                _write(self._path(network, keys[i]), arrays)

    def summary(self, made: Sequence[str], real: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The measures that have weights, of the videos `made`; distances are to the videos `real`, if there are any.

        Returns: by measure its `value`, `interval` (95%), counts, and what else it has to say.
        """
        result: dict[str, dict[str, Any]] = {}
        if "i3d" in self._load and real:
            result["fvd"] = self._distance("i3d", "logits", made, real)
        if "inception" in self._load and real:
            result["fid"] = self._distance("inception", "features", made, real)
        if "c3d" in self._load:
            score = InceptionScore(min(BLOCKS, len(made)))
            for arrays in self._read("c3d", made):
                score.update(arrays["logits"][None])
            result["video_inception_score"] = score.result()
        if "clip" in self._load:
            numbers = list(self._read("clip", made))
            for name, column in (("clipsim", "text"), ("clip_consistency", "neighbours")):
                values = [100 * float(arrays[column]) for arrays in numbers]
                result[name] = {**bootstrap(lambda x: x.mean(axis=-1), values), "count": len(values)}
        if "shapes_classifier" in self._load and real:
            result["shapes_frechet_distance"] = self._distance("shapes_classifier", "features", made, real)
        return result

    def _distance(self, network: str, column: str, made: Sequence[str], real: Sequence[str]) -> dict[str, Any]:
        sides = []
        for keys in (made, real):
            moments = BlockMoments(BLOCKS)
            for number, arrays in enumerate(self._read(network, keys)):
                moments.update(np.atleast_2d(arrays[column]), unit=number)
            sides.append(moments)
        return frechet_estimate(*sides)

    def _read(self, network: str, keys: Iterable[str]) -> Iterable[dict[str, np.ndarray]]:
        for key in keys:
            with np.load(self._path(network, key), allow_pickle=False) as arrays:
                yield dict(arrays)

    def _path(self, network: str, key: str) -> Path:
        return self._folders[network] / f"{key}.npz"


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_bytes(content.getvalue()))


def _identity(paths: Sequence[str], settings: Sequence[str]) -> str:
    """A name that changes with the files, or those in the folders, and the settings."""
    digest = hashlib.sha256(repr(tuple(settings)).encode())
    for path in map(Path, paths):
        for file in [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file()):
            with open(file, "rb") as content:
                digest.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]
