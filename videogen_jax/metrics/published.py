"""The measures on the features of trained networks: which there are, what weights each needs, its value.

The features of each video are in a file of its own, so that an evaluation that was stopped can continue, and statistics
are accumulated over the files: the features of all videos are never in memory together.
"""

import functools
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from videogen_jax.data.world import Extractor
from videogen_jax.metrics import feature_networks
from videogen_jax.metrics.frechet import BlockMoments, frechet_estimate
from videogen_jax.metrics.inception_score import InceptionScore
from videogen_jax.metrics.networks import c3d, i3d
from videogen_jax.metrics.statistics import bootstrap
from videogen_jax.metrics.worlds import EVALUATED_WORLDS
from videogen_jax.runtime.files import write_atomically
from videogen_jax.weights.hub import resolve


class Measure(NamedTuple):
    """A measure on the features of a network.

    Attributes:
      title: for tables.
      network: of the field in `config.weights` that names the weights.
      weights: which weights to pass, for the message that says so.
      to_real: whether it is a distance to real videos.
    """

    title: str
    network: str
    weights: str
    to_real: bool = False


WORLD_DISTANCES = tuple(distance for world in EVALUATED_WORLDS.values() for distance in world.evaluation.distances)
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
    **{
        distance.name: Measure(distance.title, distance.network, distance.weights, to_real=True)
        for distance in WORLD_DISTANCES
    },
}
NETWORKS = tuple(dict.fromkeys(measure.network for measure in MEASURES.values()))
EXTRACTORS = feature_networks.EXTRACTORS | {distance.network: distance.load for distance in WORLD_DISTANCES}
DISTANCE_NETWORKS = tuple(measure.network for measure in MEASURES.values() if measure.to_real)
LEAST_FRAMES = {"i3d": i3d.FRAMES, "c3d": c3d.FRAMES, "clip": 2}
BLOCKS = 10


def not_measured(weights: Mapping[str, str], has_real: bool = True) -> dict[str, str]:
    """Return what to pass for each measure that lacks the weights of its network, or real videos.

    Args:
      weights: network -> path, "" for none; measures of other networks do not belong to this evaluation.
      has_real: whether there are real videos to take distances to.
    """
    what_to_pass = {}
    for name, measure in MEASURES.items():
        if measure.network not in weights:
            continue
        needed = []
        if not weights[measure.network]:
            needed.append(f"--config.weights.{measure.network}=PATH, {measure.weights}")
        if measure.to_real and not has_real:
            needed.append("--config.real.folder=FOLDER, real videos that the distance is taken to")
        if needed:
            what_to_pass[name] = f"pass {' and '.join(needed)} (docs/metrics.md)"
    return what_to_pass


class PublishedMeasures:
    """The feature networks that have weights, and their features of each video.

    Args:
      weights: network -> path, "" or left out for none, or the name of weights that come with this package; and
        `c3d_mean`.
      folder: of the features, in a folder for each network and its weights. It must belong to one model and way of
        sampling, since the keys of videos do not name them.
      fvd_protocol: of I3D; see `feature_networks.i3d_extractor`.

    Raises:
      ValueError: a path does not exist. Weights are read, and checked, by `load` or when they are first needed.
    """

    def __init__(self, weights: Mapping[str, str], folder: Path, fvd_protocol: str):
        self._load: dict[str, Callable[[], Extractor]] = {}
        self._folders: dict[str, Path] = {}
        self.identities: dict[str, str] = {}
        if fvd_protocol not in i3d.EPSILONS:
            raise ValueError(f"config.fvd_protocol is {fvd_protocol!r}, but must be one of {', '.join(i3d.EPSILONS)}")
        for distance in WORLD_DISTANCES:
            if weights.get(distance.network) == distance.packaged:
                weights = {**weights, distance.network: resolve(distance.packaged)}
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
            self._load[network] = functools.cache(functools.partial(EXTRACTORS[network], weights[network], *extra))

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that have weights."""
        return tuple(self._load)

    def load(self) -> None:
        """Read all weights, so that those that do not fit are found before any video is generated.

        Raises:
          ValueError: names the file.
        """
        for load in self._load.values():
            load()

    def has(self, key: str, networks: Iterable[str] | None = None) -> bool:
        """Return whether the features of a video are on disk, of every network or of each of `networks`."""
        return all(self._path(network, key).is_file() for network in networks or self._load)

    def add(
        self,
        keys: Sequence[str],
        captions: Sequence[str],
        videos: Sequence[np.ndarray],
        networks: Iterable[str] | None = None,
    ) -> None:
        """Extract and store the features of videos that have none yet.

        Args:
          keys, captions: one of each video.
          videos: uint8 `(T, H, W, 3)` each.
          networks: None for all.
        """
        for network in networks or self._load:
            load = self._load[network]
            new = [i for i, key in enumerate(keys) if not self._path(network, key).is_file()]
            if not new:
                continue
            features = load()([videos[i] for i in new], [captions[i] for i in new])
            for i, arrays in zip(new, features, strict=True):
                _write(self._path(network, keys[i]), arrays)

    def summary(self, generated: Sequence[str], real: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Compute the measures that have weights.

        Args:
          generated: keys of the videos that are measured.
          real: keys of the videos that distances are taken to; no distance is measured if there are none.

        Returns: by measure its `value`, `interval` (95%), counts, and further numbers that are its own.
        """
        result: dict[str, dict[str, Any]] = {}
        if "i3d" in self._load and real:
            result["fvd"] = self._distance("i3d", "logits", generated, real)
        if "inception" in self._load and real:
            result["fid"] = self._distance("inception", "features", generated, real)
        if "c3d" in self._load:
            score = InceptionScore(min(BLOCKS, len(generated)))
            for arrays in self._read("c3d", generated):
                score.update(arrays["logits"][None])
            result["video_inception_score"] = score.result()
        if "clip" in self._load:
            similarities = list(self._read("clip", generated))
            for name, column in (("clipsim", "text"), ("clip_consistency", "neighbours")):
                values = [100 * float(arrays[column]) for arrays in similarities]
                result[name] = {**bootstrap(lambda x: x.mean(axis=-1), values), "count": len(values)}
        for distance in WORLD_DISTANCES:
            if distance.network in self._load and real:
                result[distance.name] = self._distance(distance.network, "features", generated, real)
        return result

    def _distance(self, network: str, column: str, generated: Sequence[str], real: Sequence[str]) -> dict[str, Any]:
        sides = []
        for keys in (generated, real):
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
    """Return a name that changes with the files, or those in the folders, and the settings."""
    digest = hashlib.sha256(repr(tuple(settings)).encode())
    for path in map(Path, paths):
        for file in [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file()):
            with open(file, "rb") as content:
                digest.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]
