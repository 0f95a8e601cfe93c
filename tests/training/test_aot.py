"""Training and sampling compiled for TPU pods, on a CPU, and what is refused before."""

import importlib.util
import json

import pytest

from configs.shapes import text
from configs.webvid import cascade, decoder, temporal
from videogen_jax.training import aot

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu (the extra aot) is not installed"
)


def tiny(resolution: int = 16):
    """configs/webvid/cascade.py with a network of one narrow level."""
    config = cascade.get_config(f"{resolution},v5e")
    config.model.unet.update(
        block_out_channels=(16,),
        cross_attention=(True,),
        layers_per_block=1,
        num_heads=2,
        cross_attention_dim=32,
        norm_num_groups=4,
    )
    config.example.context = ((7, 32), "float16")
    config.mesh.fsdp = 2
    config.batch_size = 4
    return config


@pytest.fixture
def without_libtpu(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_a_host_without_libtpu_is_told_what_to_install(without_libtpu):
    with pytest.raises(ValueError, match=r"--aot_topology needs libtpu.*pip install 'videogen_jax\[aot\]'"):
        aot.train_report(tiny(), "v5e:2x2")


def test_a_chip_that_is_not_in_the_table_is_refused(without_libtpu):
    with pytest.raises(ValueError, match="names the chip 'v9'; the known ones are v5e, v5p, v6e"):
        aot.train_report(tiny(), "v9:2x2")


@needs_libtpu
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mesh.fsdp": 3}, r"config\.mesh.* 4"),
        ({"batch_size": 6}, "config.batch_size is 6, which does not divide by the 4 devices"),
        ({"accumulation": 2}, r"config\.batch_size is 4.*config\.accumulation"),
        ({"data.source": "videos"}, "for a prepared data set: leave the kind of corpus out"),
    ],
)
def test_a_config_that_cannot_work_is_refused(change, message):
    config = tiny()
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        aot.train_report(config, "v5e:2x2")


def test_a_config_that_tells_no_example_is_refused():
    with pytest.raises(ValueError, match=r"config\.example is empty"):
        aot.abstract_batch(text.get_config())


@needs_libtpu
def test_a_pod_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="--aot_topology v5e:3x5"):
        aot.pod_devices("v5e:3x5")


@needs_libtpu
def test_the_training_step_of_a_tiny_cascade(tmp_path, capsys):
    config = tiny(32)
    report = aot.train_report(config, "v5e:2x2")
    assert (report.name, report.devices) == ("train cascade_32", 4)
    assert {axis: size for axis, size in report.mesh.items() if size > 1} == {"data": 2, "fsdp": 2}
    # Parameters, moving average and two moments, float32; kernels are on half of the devices each, the rest on all.
    state = 16 * report.parameters
    assert state / 2 < report.argument_bytes < state + 2**20
    kinds = report.collectives
    assert kinds["all-gather"].bytes > report.parameters  # bfloat16, in the forward and in the backward pass
    assert kinds["all-reduce"].sent > 0
    assert 0 < report.used < 0.1
    assert report.least.seconds > 0
    assert report.chip_hours == pytest.approx(report.least.seconds * config.steps * 4 / 3600)
    aot.write([report], tmp_path / "made" / "report.json")
    (read,) = json.loads((tmp_path / "made" / "report.json").read_text())
    assert read["bound_by"] == report.least.bound_by
    assert read["collectives"]["all-reduce"]["count"] == kinds["all-reduce"].count
    shown = capsys.readouterr().out
    assert "train cascade_32 on v5e:2x2 (4 devices: data 2, fsdp 2), batch 4" in shown
    assert "all-gather" in shown


@needs_libtpu
def test_sampling_of_a_tiny_cascade():
    report = aot.sample_report(tiny(), "v5e:2x2")
    assert report.name == "sample cascade_16"
    assert report.steps == report.chip_hours == 0
    assert report.argument_bytes < 16 * report.parameters  # no optimizer's state


@pytest.mark.parametrize("hardware", ["v5e", "v5p", "h100", "h200"])
def test_configs_for_hardware(hardware):
    """The network computes in bfloat16, the batch divides the devices, and as many examples are seen."""
    for module, arguments, network in (
        (cascade, ("16", "32", "64"), "unet"),
        (temporal, ("folder", "prepared"), "upsampler"),
        (decoder, ("folder",), "decoder"),
    ):
        for argument in arguments:
            config, plain = module.get_config(f"{argument},{hardware}"), module.get_config(argument)
            assert config.model[network].dtype == "bfloat16"
            assert config.batch_size % config.mesh.fsdp == 0
            assert config.steps * config.batch_size == pytest.approx(plain.steps * plain.batch_size, rel=1e-3)
            aot.abstract_batch(config)


def test_two_kinds_of_hardware_are_refused():
    with pytest.raises(ValueError, match="names v5e and h100"):
        cascade.get_config("16,v5e,h100")
