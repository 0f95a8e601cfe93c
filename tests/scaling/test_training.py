"""Training and sampling programs compiled for TPU pods on a CPU, and the configs and pods that are rejected."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from configs.shapes import text
from configs.webvid import cascade, decoder, temporal
from videogen_jax.scaling import training
from videogen_jax.training.mesh import make_mesh

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu (the extra aot) is not installed"
)


def tiny(resolution: int = 16):
    """Return configs/webvid/cascade.py with a network of one narrow level."""
    config = cascade.get_config(f"resolution={resolution},hardware=v5e")
    config.model.unet.update(
        block_out_channels=(16,),
        cross_attention=(True,),
        layers_per_block=1,
        num_heads=2,
        cross_attention_dim=32,
        norm_num_groups=4,
    )
    config.example.text_length = 7
    config.mesh.fsdp, config.fsdp_min_size = 2, 128
    config.batch_size = 4
    return config


@pytest.fixture
def without_libtpu(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_a_missing_libtpu_is_reported_with_the_extra_to_install(without_libtpu):
    with pytest.raises(ValueError, match=r"--aot_topology needs libtpu.*pip install 'videogen_jax\[aot\]'"):
        training.train_report(tiny(), "v5e:2x2")


def test_an_unknown_chip_is_rejected(without_libtpu):
    with pytest.raises(ValueError, match="names the chip 'v9'; the known ones are v5e, v5p, v6e"):
        training.train_report(tiny(), "v9:2x2")


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
def test_invalid_configs_are_rejected(change, message):
    config = tiny()
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        training.train_report(config, "v5e:2x2")


def test_a_config_without_an_example_is_rejected():
    with pytest.raises(ValueError, match=r"config\.example is empty"):
        training.abstract_inputs(text.get_config())


@needs_libtpu
def test_a_pod_that_does_not_exist_is_rejected():
    with pytest.raises(ValueError, match="--aot_topology v5e:3x5"):
        training.pod_devices("v5e:3x5")


@needs_libtpu
def test_a_manually_sharded_program(tmp_path, capsys):
    """The first axis of x is sharded over all four devices, that of w over two: w is gathered, the sum all-reduced."""
    _, devices = training.pod_devices("v5e:2x2")
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 1}, devices)
    x_sharding, w_sharding = NamedSharding(mesh, P(("data", "fsdp"))), NamedSharding(mesh, P("fsdp"))
    shardings = {"in_shardings": (x_sharding, w_sharding), "out_shardings": NamedSharding(mesh, P())}
    program = jax.jit(lambda x, w: (x @ w).sum(0), **shardings)
    shapes = jax.ShapeDtypeStruct((1024, 512), jnp.float32), jax.ShapeDtypeStruct((512, 256), jnp.float32)
    fields = {"batch_size": 1024, "parameters": 512 * 256, "steps": 7200}
    report = training.compile_report("product", "v5e:2x2", program, shapes, mesh, **fields)
    assert report.argument_bytes == 4 * (1024 * 512 // 4 + 512 * 256 // 2)
    assert report.flops == 2 * 1024 * 512 * 256 / 4
    assert report.collectives["all-gather"].bytes in (2 * 512 * 256, 4 * 512 * 256)  # in bfloat16 or float32
    assert report.collectives["all-reduce"].bytes == 4 * 256
    assert report.collectives["all-reduce"].sent == 4 * 256 * 2 * 3 / 4
    assert report.traffic_bytes >= report.argument_bytes
    assert report.memory_bytes == 16 * 2**30
    assert report.chip_hours == pytest.approx(8 * report.least.seconds)
    training.write([report], tmp_path / "reports" / "report.json")
    (report_json,) = json.loads((tmp_path / "reports" / "report.json").read_text())
    assert report_json["bound_by"] == report.least.bound_by
    assert report_json["collectives"]["all-reduce"]["count"] == 1
    printed = capsys.readouterr().out
    assert "product on v5e:2x2 (4 devices: data 2, fsdp 2), batch 1024" in printed
    assert "all-reduce" in printed


@needs_libtpu
def test_a_program_that_does_not_fit_is_rejected():
    _, devices = training.pod_devices("v5e:2x2")
    mesh = make_mesh({"data": 4, "fsdp": 1, "tensor": 1}, devices)
    replicated = NamedSharding(mesh, P())
    large = jax.ShapeDtypeStruct((2**17, 2**17), jnp.bfloat16)  # 32 GiB
    program = jax.jit(lambda x: jnp.sin(x), in_shardings=replicated, out_shardings=replicated)
    with pytest.raises(ValueError, match=r"too much with a batch of 8 on v5e:2x2: .*emory"):
        training.compile_report("too much", "v5e:2x2", program, (large,), mesh, batch_size=8, parameters=0)


@pytest.mark.slow
@needs_libtpu
def test_training_and_sampling_of_a_tiny_cascade():
    train, sample = training.train_report(tiny(32), "v5e:2x2"), training.sample_report(tiny(32), "v5e:2x2")
    assert (train.name, sample.name) == ("train cascade_32", "sample cascade_32")
    # Parameters, their moving average and two moments in float32; kernels are sharded over two devices, the rest whole.
    assert train.argument_bytes > 8 * train.parameters
    assert sample.argument_bytes < train.argument_bytes / 2  # no optimizer state
    kinds = train.collectives
    assert kinds["all-gather"].bytes > train.parameters  # bfloat16, in the forward and in the backward pass
    assert kinds["all-reduce"].sent > 0
    assert train.chip_hours == pytest.approx(train.least.seconds * train.steps * 4 / 3600)
    assert sample.steps == sample.chip_hours == 0
    assert train.used < 0.1


def expected_batch(config, argument):
    """Return the shapes and dtypes of a batch at the paper's scale; the argument is that of the config, `key=value`."""
    size, value = config.batch_size, argument.partition("=")[2]
    if config.stage == "decoder":
        return {"video": ((size, 8, 512, 512, 3), jnp.uint8)}
    if value == "folder":
        return {"video": ((size, 17, 512, 512, 3), jnp.uint8)}
    if value == "prepared":
        return {"latents": ((size, 17, 64, 64, 4), jnp.float16)}
    side = int(value)
    frames = {"latents": (16, side), "reference": (1, side)} | ({"lower": (16, side // 2)} if side > 16 else {})
    return {
        **{name: ((size, t, r, r, 4), jnp.float16) for name, (t, r) in frames.items()},
        "context": ((size, 77, 768), jnp.float16),
        "fps": ((size,), jnp.float32),
    }


@pytest.mark.parametrize("hardware", ["v5e", "v5p", "h100", "h200"])
def test_configs_for_hardware(hardware):
    """The network uses bfloat16, the mesh divides the batch, and training processes as many examples as without."""
    for module, arguments, network in (
        (cascade, ("resolution=16", "resolution=32", "resolution=64"), "unet"),
        (temporal, ("corpus=folder", "corpus=prepared"), "upsampler"),
        (decoder, ("corpus=folder",), "decoder"),
    ):
        for argument in arguments:
            config, plain = module.get_config(f"{argument},hardware={hardware}"), module.get_config(argument)
            assert config.model[network].dtype == "bfloat16"
            assert config.batch_size % config.mesh.fsdp == 0
            assert config.steps * config.batch_size == pytest.approx(plain.steps * plain.batch_size, rel=1e-3)
            inputs = training.abstract_inputs(config)
            assert {name: (x.shape, x.dtype) for name, x in inputs.batch.items()} == expected_batch(config, argument)


def test_two_kinds_of_hardware_are_rejected():
    with pytest.raises(ValueError, match="hardware is given twice, as v5e and as h100"):
        cascade.get_config("resolution=16,hardware=v5e,hardware=h100")
