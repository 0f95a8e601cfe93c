"""Config files: their arguments, and the fields of a stage that they show."""

import copy
import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from configs.arguments import SEED, Key, read_arguments
from configs.base import stage_defaults
from videogen_jax.diffusion.schedules import make_schedule
from videogen_jax.models.unet import UNet
from videogen_jax.stages.cascade import CascadeStage
from videogen_jax.stages.stage import InputSizes, batch_spec
from videogen_jax.training.build import build_stage
from videogen_jax.training.model_config import explicit_fields
from videogen_jax.training.parameter_paths import path_name

ROOT = Path(__file__).parents[1]

KEYS = {"resolution": Key(16, (16, 32, 64)), "hardware": Key(None, ("v5e", "h100")), "seed": SEED}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", (16, None, 0)),
        ("resolution=32", (32, None, 0)),
        ("hardware=v5e,resolution=64", (64, "v5e", 0)),
        ("resolution=64, hardware=h100, seed=3", (64, "h100", 3)),
        ("64,v5e,seed=3", (64, "v5e", 3)),
        ("v5e", (16, "v5e", 0)),
        ("32,hardware=h100", (32, "h100", 0)),
    ],
)
def test_arguments_are_read_by_key_and_in_the_short_form(text, values):
    read = read_arguments(text, **KEYS)
    assert (read.resolution, read.hardware, read.seed) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resolution=5", "the argument resolution must be 16, 32 or 64, not '5'"),
        ("seed=one", "the argument seed must be an integer, not 'one'"),
        ("5", "no argument '5'; its arguments are resolution: 16, 32 or 64; hardware: v5e or h100; seed: an integer"),
        ("sead=1", "no argument 'sead=1'; its arguments are resolution"),
        ("16,32", "the argument resolution is given twice, as 16 and as 32"),
        ("hardware=v5e,hardware=h100", "the argument hardware is given twice, as v5e and as h100"),
    ],
)
def test_an_argument_that_is_not_allowed_is_refused_by_name(text, message):
    with pytest.raises(ValueError, match=message):
        read_arguments(text, **KEYS)


def test_a_config_without_arguments_refuses_them():
    with pytest.raises(ValueError, match="no argument 'fast'; it takes none"):
        read_arguments("fast")


def get_config(name, argument=""):
    module = importlib.import_module(f"configs.{name}")
    return module.get_config(argument) if argument else module.get_config()


@pytest.mark.parametrize(
    ("name", "short", "argument"),
    [
        ("shapes.autoencoder", "full", "frames=full"),
        ("shapes.autoencoder", "decoder", "part=decoder"),
        ("shapes.cascade", "16", "resolution=16"),
        ("shapes.text", "circling", "words=circling"),
        ("shapes.ablations.whole", "8,seed=2", "resolution=8,seed=2"),
        ("shapes.ablations.guidance", "2.0,seed=1", "guidance_scale=2.0,seed=1"),
        ("shapes.ablations.reference_guidance", "3.0", "reference_guidance_scale=3.0"),
        ("shapes.ablations.sampler", "euler", "sampler=euler"),
        ("shapes.ablations.steps", "5", "steps=5"),
        ("webvid.cascade", "32,v5e", "resolution=32,hardware=v5e"),
        ("webvid.cascade", "16,folder,h100", "hardware=h100,corpus=folder,resolution=16"),
        ("webvid.decoder", "csv,v5e", "corpus=csv,hardware=v5e"),
        ("webvid.temporal", "prepared,v5e", "corpus=prepared,hardware=v5e"),
        ("webvid.prepare", "tfds", "corpus=tfds"),
    ],
)
def test_the_short_forms_of_arguments_still_read(name, short, argument):
    assert get_config(name, short).to_dict() == get_config(name, argument).to_dict() != get_config(name).to_dict()


SHAPES_UNET = {"layers_per_block": 1, "num_heads": 4, "cross_attention_dim": 128, "norm_num_groups": 16}
COSINE = {"name": "cosine", "rescale_zero_terminal_snr": True}
# The fields that a config sets. All others stand at the defaults of their classes.
CHOSEN = {
    ("shapes.text", "words=circling"): {
        "text_encoder": {
            "vocab_size": 637,
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_layers": 2,
            "num_heads": 4,
            "projection_dim": 128,
            "eos_token_id": 636,
        },
        "uniformity_weight": 1.0,
        "trained_words": ("clockwise", "counterclockwise"),
    },
    ("shapes.autoencoder", "frames=full"): {
        "autoencoder": {
            "block_out_channels": (16, 24, 48, 96),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        },
        "scales": ((1.0, 4), (0.5, 4), (0.25, 8)),
        "mse_weight": 2.0,
        "kl_weight": 1e-4,
    },
    ("shapes.reference", ""): {
        "unet": {
            "block_out_channels": (64, 128, 128),
            "cross_attention": (False, True, True),
            **SHAPES_UNET,
        },
        "schedule": COSINE,
        "prediction_type": "v_prediction",
        "timestep_logit_normal": (0.3, 1.2),
    },
    ("shapes.cascade", "resolution=16"): {
        "unet": {
            "block_out_channels": (64, 128, 128),
            "cross_attention": (False, True, True),
            "reference_attention": (False, True, True),
            **SHAPES_UNET,
        },
        "schedule": COSINE,
        "prediction_type": "v_prediction",
        "timestep_logit_normal": (0.7, 1.0),
        "reference_frames": "clean",
        "reference_init": 0.5,
        "resolution": 16,
        "lower_resolution": 8,
    },
    ("shapes.temporal", ""): {"upsampler": {}, "factor": 4},
    ("shapes.decoder", ""): {
        "decoder": {
            "block_out_channels": (16, 24, 48, 96),
            "layers_per_block": 1,
            "mid_block_layers": 2,
            "norm_num_groups": 4,
        },
        "discriminator": {"channels": (16, 32, 64), "norm_num_groups": 8},
        "difference_weight": 12.0,
        "perceptual_weight": 0.0,
        "adversarial_weight": 0.0,
        "latent_noise": 0.0,
    },
    ("shapes.classifier", ""): {
        "classifier": {
            "num_classes": (2, 8, 4, 20, 4, 3),
            "widths": (24, 48, 64),
            "features": 96,
            "num_frames": 8,
            "resolution": 64,
        },
        "noise": 0.1,
    },
    ("webvid.cascade", "resolution=64,hardware=v5e"): {
        "unet": {
            "block_out_channels": (320, 640, 1280, 1280),
            "layers_per_block": 2,
            "cross_attention": (True, True, True, False),
            "num_heads": 8,
            "cross_attention_dim": 768,
            "norm_num_groups": 32,
            "added_conditions": ("fps",),
            "remat": True,
            "dtype": "bfloat16",
        },
        "schedule": {"name": "scaled_linear", "rescale_zero_terminal_snr": True},
        "prediction_type": "v_prediction",
        "resolution": 64,
        "lower_resolution": 32,
    },
    ("webvid.temporal", "corpus=prepared"): {"upsampler": {}, "factor": 4},
    ("webvid.decoder", "hardware=h100"): {
        "decoder": {"use_post_quant_conv": True, "remat": True, "dtype": "bfloat16"},
        "discriminator": {"dtype": "bfloat16"},
        "difference_weight": 10.0,
        "perceptual_weight": 0.0,
        "adversarial_weight": 0.05,
        "latent_noise": 0.05,
    },
}


@pytest.mark.parametrize(("name", "argument"), CHOSEN)
def test_a_stage_and_its_export_hold_what_the_config_sets(name, argument):
    config = get_config(name, argument)
    assert explicit_fields(config.model) == CHOSEN[name, argument]
    stage, expected = (
        build_stage(config.stage, fields) for fields in (explicit_fields(config.model), CHOSEN[name, argument])
    )
    assert stage == expected
    assert stage.parts() == expected.parts()


@pytest.mark.parametrize(("name", "argument"), CHOSEN)
def test_a_config_shows_all_fields_of_its_stage(name, argument):
    config = get_config(name, argument)
    stage, complete = (
        build_stage(config.stage, fields) for fields in (explicit_fields(config.model), config.model.to_dict())
    )
    assert complete.network == stage.network
    assert set(config.model) == {field.name for field in dataclasses.fields(stage)}
    for section, value in config.model.items():
        if not isinstance(value, ConfigDict):
            assert getattr(complete, section) == getattr(stage, section)
        elif section == "schedule":
            assert set(value) == set(inspect.signature(make_schedule).parameters)
        else:
            network = type(stage.critic if section == "discriminator" else stage.network)
            hidden = {"parent", "name", *getattr(stage, "derived_fields", {}).get(section, ())}
            assert set(value) == {field.name for field in dataclasses.fields(network)} - hidden


def test_the_fields_that_a_stage_derives_are_those_that_it_overwrites():
    names = {field.name for field in dataclasses.fields(UNet)} - {"parent", "name", "added_conditions"}
    unet = CascadeStage(dict.fromkeys(names, "set")).unet
    assert {name for name in names if unet[name] != "set"} == set(CascadeStage.derived_fields["unet"])
    assert CascadeStage({"added_conditions": ("fps",)}).unet["added_conditions"] == ("fps",)
    assert {CascadeStage(unet).unet["temporal"] for unet in ({}, {"temporal": None}, {"temporal": True})} == {
        "make_a_video"
    }


def test_a_field_is_explicit_from_when_it_is_set_and_in_copies():
    model = stage_defaults(CascadeStage, unet=UNet, schedule=make_schedule)
    assert explicit_fields(model) == {"unet": {}, "schedule": {"name": "scaled_linear"}}  # as the stage's own default
    model.update_from_flattened_dict({"unet.remat": True, "reference_dropout": 0})
    model.lower_resolution = None
    expected = {"unet": {"remat": True}, "schedule": {"name": "scaled_linear"}, "reference_dropout": 0.0}
    for read in (model, copy.deepcopy(model), ConfigDict(model)):
        assert explicit_fields(read) == {**expected, "lower_resolution": None}
    with pytest.raises(TypeError, match="reference_dropout"):
        model.reference_dropout = "often"


def test_a_field_that_no_config_can_hold_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Odd:
        callback: Callable[[], None] | None = None

    with pytest.raises(TypeError, match=r"the field callback is a .*Callable"):
        stage_defaults(Odd)
    with pytest.raises(
        TypeError, match=r"stage_defaults\(CascadeStage\) needs the classes of schedule, unet, not of unet"
    ):
        stage_defaults(CascadeStage, unet=UNet)


def test_configs_of_sampling_evaluation_and_preparation_need_no_jax():
    modules = ["shapes.sample", "shapes.evaluate", "webvid.evaluate_msrvtt", "webvid.evaluate_ucf101", "webvid.prepare"]
    ablations = ("as_shipped", "decoder", "evaluate", "guidance", "reference_guidance", "sampler", "steps", "temporal")
    modules += [f"shapes.ablations.{name}" for name in ablations]
    imports = "; ".join(f"import configs.{name}" for name in modules)
    program = f"import sys; {imports}; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize(("name", "count"), [("svd", 1_524_623_082), ("modelscope", 1_411_233_860)])
def test_public_models_have_their_true_size_and_are_spread_over_tensor(name, count):
    config = get_config(f"public.{name}")
    stage = build_stage(config.stage, explicit_fields(config.model))
    batch = batch_spec(stage.input_spec(InputSizes(num_frames=2, resolution=8)))
    sizes = {}
    for path, leaf in jax.tree.leaves_with_path(jax.eval_shape(stage.init, jax.random.key(0), batch)):
        found = any(re.search(pattern, path_name(path)) for pattern, _ in config.sharding_rules)
        sizes[found] = sizes.get(found, 0) + leaf.size
    assert sum(sizes.values()) == count
    assert sizes[False] < 0.1 * count
