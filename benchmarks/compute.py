"""What training and sampling of a run of the ablations compute, counted from its configs: no weights are read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from videogen_jax.sampling.request import SamplingRequest
from videogen_jax.scaling.flops import count_flops
from videogen_jax.stages.stage import InputSizes, batch_spec
from videogen_jax.training.build import build_stage
from videogen_jax.weights.folder import load_config
from videogen_jax.weights.hub import resolve
from videogen_jax.weights.model_index import ModelIndex

_COUNTED: dict[str, int] = {}  # what has been traced, which takes seconds


def training_flops(config: Mapping[str, Any]) -> int:
    """Operations of one training step of a cascade stage, forwards and backwards; see `count_flops`.

    config: a training config as a dict, as in a run's `config.json`. The length of texts is that of its `model_folder`.
    """
    model, data = config["model"], config["data"]
    text = load_config(resolve(config["model_folder"]) / "text_encoder")
    stage = build_stage(config["stage"], model)
    sizes = InputSizes(num_frames=data["num_frames"], text_length=text["max_position_embeddings"])
    inputs = stage.input_spec(sizes)
    batch, frozen = batch_spec(inputs, config["batch_size"]), stage.frozen_spec(inputs)
    rng = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)

    def step(params, frozen, batch, rng):
        return jax.grad(lambda params: stage.loss(params, frozen, batch, rng)[0])(params)

    if (key := json.dumps([model, {name: x.shape for name, x in batch.items()}])) not in _COUNTED:
        params = jax.eval_shape(stage.init, rng, batch)
        _COUNTED[key] = count_flops(step, params, frozen, batch, rng)
    return _COUNTED[key]


def run_flops(workdirs: Sequence[Path]) -> float:
    """Operations of all steps of the trainings in these folders."""
    configs = [json.loads((workdir / "config.json").read_text()) for workdir in workdirs]
    return float(sum(config["steps"] * training_flops(config) for config in configs))


def sampling_flops(model_folder: str | Path, sampling: Mapping[str, Any]) -> float:
    """Operations of the cascade's networks for one video: steps times guidance passes, stage by stage.

    sampling: the section of an evaluation's config, or of its results.
    """
    index = ModelIndex.read(model_folder)
    settings = SamplingRequest.from_config(sampling, ["a video"]).resolve(index).stages
    text = load_config(Path(model_folder) / "text_encoder")
    total = 0
    for name in index.cascade:
        fields = {key: value for key, value in load_config(Path(model_folder) / name).items() if key != "_class_name"}
        stage = build_stage("cascade", fields)
        if (key := json.dumps([fields, text, index.num_frames])) not in _COUNTED:
            _COUNTED[key] = _denoising(stage, text, index)
        total += len(stage.passes(settings[name])) * settings[name].steps * _COUNTED[key]
    return float(total)


def _denoising(stage: Any, text: Mapping[str, Any], index: ModelIndex) -> int:
    """Of one evaluation of a stage's network, for one video."""
    side, network = stage.resolution, stage.network
    x = jax.ShapeDtypeStruct((1, index.num_frames, side, side, network.in_channels), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    context = jax.ShapeDtypeStruct((1, text["max_position_embeddings"], text["hidden_size"]), jnp.float32)
    scalars = dict.fromkeys(network.added_conditions, t)
    arguments = (x, t, context, scalars)
    params = jax.eval_shape(lambda *args: network.init(jax.random.key(0), *args), *arguments)["params"]
    return count_flops(stage.predict, params, *arguments)
