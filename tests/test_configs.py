"""Config files: their arguments, and the fields of a stage that they show."""

import importlib

import pytest

from configs.arguments import SEED, Key, read_arguments

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
