"""What training configs share: `get_base_config()`, and `stage_defaults()` for the `model` section."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from videogen_jax.stages.stage import DTYPES
from videogen_jax.training.model_config import DefaultField

# Pairs of layers, the first of which is split over "tensor" by its outputs and the second by its inputs, so that the
# activations between them need not be gathered (Shoeybi et al. 2019, section 3): attention heads, feed-forward layers,
# the convolutions of residual blocks and the classifier's last layers. The single head of an autoencoder's attention
# cannot be split.
BY_OUTPUT = (
    r"(attn\d/to_[qkv]|[qkv]_proj|net_0/proj|fc1|conv1|time_emb_proj|features"
    r"|time_pos_embed/linear_1|temp_convs_\d+/conv[13]/\d)/kernel$"
)
BY_INPUT = (
    r"(attn\d/to_out_0|out_proj|net_2|fc2|conv2|temporal_conv1/conv|logits"
    r"|time_pos_embed/linear_2|temp_convs_\d+/conv[24]/\d)/kernel$"
)


def get_base_config() -> ConfigDict:
    """Fields of every training config. A config file sets `stage`, `model` and `data`."""
    config = ConfigDict()
    config.stage = ""
    config.seed = 0
    config.steps = 1000
    config.batch_size = 32
    config.accumulation = 1  # micro-batches that a batch is split into; one is in memory at a time
    config.ema_decay = 0.999
    config.model_folder = "runs/shapes/model"  # holds the frozen parts of earlier stages
    # A model folder to initialise this stage's parts from; "" to train from scratch. From a folder without such a part
    # (Stable Diffusion's), a cascade stage takes the 2D UNet for its spatial layers; the UNet's own folder works too.
    config.init_from = ""
    config.motion_adapter = ""  # AnimateDiff's, for an init_from that is Stable Diffusion: a folder, hub id or id:file
    config.perceptual_weights = ""  # folder with VGG-16's safetensors, for a decoder with a perceptual term

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.final_fraction = 0.02  # of the peak learning rate, at the last step
    config.optimizer.weight_decay = 0.01
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.99
    config.optimizer.clip_norm = 1.0
    config.optimizer.fixed = ""  # regular expression; parameters whose path contains a match are not trained

    # Devices along each axis; -1 for one axis takes those that are left (docs/distributed.md).
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "frames": 1, "tensor": 1})
    # (regular expression on the parameter's path, partition of its last axes); the first match applies. Large
    # parameters without "fsdp" in their partition are also sharded over it, along their largest axis.
    config.sharding_rules = ((BY_OUTPUT, (None, "tensor")), (BY_INPUT, ("tensor", None)))
    config.fsdp_min_size = 2**14  # elements; smaller parameters are not sharded over "fsdp"

    config.log_every = 20
    config.sample_every = 500
    config.sample_count = 4
    config.checkpoint_every = 250
    config.keep_checkpoints = 2  # how many of the newest stay
    config.keep_every = 0  # checkpoints of steps that are multiples of this stay for good; 0 for none
    config.loader_threads = 2

    config.image_fraction = 0.0  # share of batches that are of still images, from image_data
    config.image_data = ConfigDict({"source": ""})

    config.data = ConfigDict({"source": "", "split": "train", "seed": 1, "num_clips": 100_000})
    # Sizes of an example (fields of `stages.stage.InputSizes`) for `--aot_topology`, which reads no data.
    config.example = ConfigDict()
    return config


def stage_defaults(stage: type, **networks: Callable[..., Any]) -> ConfigDict:
    """The `model` section of a config: all fields of a stage at their defaults, each of which can be set.

    A field whose default is None, or that has no default, is a placeholder of its type. Network fields that the stage
    works out by itself (`derived_fields`) are left out.

    Args:
      stage: the stage's dataclass.
      networks: for each field of the stage that is itself a mapping, the class or function whose arguments it holds.

    Raises:
      TypeError: the mappings of the stage are others than those of `networks`, or no config can hold a field's type.
    """
    fields = [field for field in dataclasses.fields(stage) if field.init]
    mappings = {field.name for field in fields if typing.get_origin(field.type) is Mapping}
    if mappings != set(networks):
        raise TypeError(
            f"stage_defaults({stage.__name__}) needs the classes of {', '.join(sorted(mappings)) or 'no mapping'}, "
            f"not of {', '.join(sorted(networks)) or 'none'}"
        )
    section = ConfigDict()
    for field in fields:
        has_factory = field.default_factory is not dataclasses.MISSING
        default = field.default_factory() if has_factory else field.default
        if field.name not in networks:
            section[field.name] = default_field(field.name, field.type, default)
            continue
        derived = getattr(stage, "derived_fields", {}).get(field.name, ())
        arguments = arguments_of(networks[field.name])
        section[field.name] = ConfigDict({name: arguments[name] for name in arguments if name not in derived})
        if has_factory:
            section[field.name].update(default)
    return section


def arguments_of(function: Callable[..., Any]) -> dict[str, DefaultField]:
    """The arguments of a flax module's class, or of a function, at their defaults."""
    of_every_module = ("parent", "name") if isinstance(function, type) else ()
    parameters = inspect.signature(function).parameters.values()
    return {p.name: default_field(p.name, p.annotation, p.default) for p in parameters if p.name not in of_every_module}


def default_field(name: str, annotation: Any, default: Any) -> DefaultField:
    """A field at its default, with the type that the command line reads for its annotation; a dtype is a name."""
    if default in (dataclasses.MISSING, inspect.Parameter.empty):
        default = None
    if annotation is jnp.dtype:
        return DefaultField(next(key for key, dtype in DTYPES.items() if dtype == default), str)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(annotation) if option is not types.NoneType]
        annotation = options[0] if len(options) == 1 else object
    kind = typing.get_origin(annotation) or annotation
    kind = tuple if kind is Sequence else kind
    if kind not in (bool, int, float, str, tuple, object):
        raise TypeError(f"the field {name} is a {annotation}, which no config can hold")
    return DefaultField(default, kind)
