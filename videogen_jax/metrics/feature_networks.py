"""Feature networks with the user's weights, as extractors: functions from videos to a few small arrays of each."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.data.world import Extractor
from videogen_jax.metrics.networks import c3d, i3d, inception
from videogen_jax.metrics.networks.clip import load_clip
from videogen_jax.stages.stage import Params
from videogen_jax.weights import naming
from videogen_jax.weights.tensors import StoredTensors
from videogen_jax.weights.torch_files import load_torch_file

Features = list[dict[str, np.ndarray]]


def read_weights(path: str | os.PathLike) -> Mapping[str, np.ndarray]:
    """Read the tensors of a weights file: .safetensors, .npz, or any other suffix for PyTorch's format.

    Raises:
      ValueError: the file is missing or cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"the weights file {path} does not exist")
    if path.suffix == ".safetensors":
        return StoredTensors([path])
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        except (ValueError, OSError) as error:
            raise ValueError(f"{path} cannot be read as arrays: {error}") from error
    return load_torch_file(path)


def i3d_extractor(path: str, protocol: str = "tensorflow") -> Extractor:
    """Return an extractor of `logits` `(400,)` and `features` `(1024,)` of a video's first 16 frames.

    Args:
      path: of the weights, see `read_weights`.
      protocol: one of `i3d.EPSILONS`.
    """
    if protocol not in i3d.EPSILONS:
        raise ValueError(f"config.fvd_protocol is {protocol!r}, but must be one of {', '.join(i3d.EPSILONS)}")
    network = i3d.I3D(eps=i3d.EPSILONS[protocol])
    params = _params(network, (1, 9, 32, 32, 3), i3d.public_names(read_weights(path)), path)
    run = jax.jit(lambda params, video: network.apply({"params": params}, i3d.preprocess(video)))

    def extract(videos: Sequence[np.ndarray], captions: Sequence[str]) -> Features:
        outputs = (run(params, first_frames(video, i3d.FRAMES)[None]) for video in videos)
        return [{"logits": np.asarray(logits[0]), "features": np.asarray(pooled[0])} for logits, pooled in outputs]

    return extract


def c3d_extractor(path: str, mean_path: str = "") -> Extractor:
    """Return an extractor of `logits` `(101,)` of a video's first 16 frames.

    Args:
      path: of the weights, see `read_weights`.
      mean_path: of the mean cube, where it is not among the weights.
    """
    tensors = dict(c3d.public_names(read_weights(path)))
    mean = tensors.pop(c3d.MEAN_NAME, None)
    if mean_path:
        arrays = read_weights(mean_path)
        if c3d.MEAN_NAME not in arrays and len(arrays) != 1:
            raise ValueError(f"{mean_path} holds {len(arrays)} arrays, none called {c3d.MEAN_NAME}")
        mean = arrays[c3d.MEAN_NAME] if c3d.MEAN_NAME in arrays else next(iter(arrays.values()))
    if mean is None:
        raise ValueError(f"{path} has no tensor called {c3d.MEAN_NAME}: pass the mean, --config.weights.c3d_mean=FILE")
    mean, network = c3d.read_mean(mean), c3d.C3D()
    params = _params(network, (1, c3d.FRAMES, c3d.SIDE, c3d.SIDE, 3), tensors, path)
    run = jax.jit(lambda params, video: network.apply({"params": params}, c3d.preprocess(video, mean)))

    def extract(videos: Sequence[np.ndarray], captions: Sequence[str]) -> Features:
        return [{"logits": np.asarray(run(params, first_frames(v, c3d.FRAMES)[None])[0])} for v in videos]

    return extract


def inception_extractor(path: str) -> Extractor:
    """Return an extractor of `features` `(T, 2048)` of all frames of a video."""
    network = inception.InceptionV3()
    params = _params(network, (1, 75, 75, 3), inception.public_names(read_weights(path)), path)
    run = jax.jit(lambda params, frames: network.apply({"params": params}, inception.preprocess(frames))[0])

    def extract(videos: Sequence[np.ndarray], captions: Sequence[str]) -> Features:
        return [{"features": np.asarray(run(params, video))} for video in videos]

    return extract


def clip_extractor(path: str) -> Extractor:
    """Return an extractor of `text` and `neighbours`: the mean cosine of each frame to the caption, and to the next.

    Args:
      path: of a folder, see `load_clip`.
    """
    clip = load_clip(path)

    def extract(videos: Sequence[np.ndarray], captions: Sequence[str]) -> Features:
        texts = clip.embed_texts(captions)
        return [clip_similarities(clip.embed_images(video), text) for video, text in zip(videos, texts, strict=True)]

    return extract


def clip_similarities(frames: np.ndarray, text: np.ndarray) -> dict[str, np.ndarray]:
    """Compute `text` and `neighbours`, see `clip_extractor`, of frames `(T, P)` and a caption `(P,)` of unit norm."""
    frames, text = frames.astype(np.float64), text.astype(np.float64)
    return {"text": (frames @ text).mean(), "neighbours": (frames[:-1] * frames[1:]).sum(axis=-1).mean()}


def first_frames(video: np.ndarray, count: int) -> np.ndarray:
    """Return the first frames. ValueError: there are fewer."""
    if len(video) < count:
        raise ValueError(f"a video of {len(video)} frames is too short for a network that takes {count}")
    return video[:count]


def _params(network: nn.Module, shape: tuple[int, ...], tensors: Mapping[str, Any], path: str) -> Params:
    template = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))["params"]
    try:
        return jax.tree.map(jnp.asarray, naming.from_public(tensors, template))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


EXTRACTORS: dict[str, Callable[..., Extractor]] = {
    "i3d": i3d_extractor,
    "inception": inception_extractor,
    "c3d": c3d_extractor,
    "clip": clip_extractor,
}
