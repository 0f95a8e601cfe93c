"""The programs of a pipeline compiled for a TPU pod."""

import importlib.util

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs.shapes.sample import get_config
from videogen_jax.scaling import sampling
from videogen_jax.training.mesh import batch_sharding, make_mesh


@pytest.fixture
def config(tiny_model):
    config = get_config()
    config.model, config.batch_size = str(tiny_model), 4
    return config


def test_a_batch_that_the_devices_do_not_divide_is_rejected(monkeypatch, config):
    monkeypatch.setattr(sampling, "pod_devices", lambda topology: (None, 3 * jax.devices()[:1]))
    with pytest.raises(ValueError, match="batch_size is 4, which does not divide by the 3 devices of --aot_topology"):
        sampling.pipeline_reports(config, "v5e:1x3")


def test_every_program_has_a_sharded_batch_and_replicated_parameters(monkeypatch, config, tiny_pipeline):
    devices = jax.devices()[:1]
    compiled = {}
    monkeypatch.setattr(sampling, "pod_devices", lambda topology: (None, devices))
    monkeypatch.setattr(
        sampling, "compile_report", lambda name, topology, program, args, *_, **fields: compiled.update({name: args})
    )
    sampling.pipeline_reports(config, "v5e:1x1")
    cascade = [f"sample {name}" for name in tiny_pipeline.index.cascade]
    assert {"sample text", "sample reference", "sample encode", *cascade, "sample decode"} < set(compiled)
    mesh = make_mesh({"data": -1}, devices)
    batch, replicated = batch_sharding(mesh), NamedSharding(mesh, PartitionSpec())
    params, state, *_ = compiled[cascade[0]]
    assert state.x.sharding == batch
    assert state.x.shape[0] == 4
    assert all(leaf.sharding == replicated for leaf in jax.tree.leaves(params))
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    assert shapes == [np.shape(leaf) for leaf in jax.tree.leaves(tiny_pipeline.params[tiny_pipeline.index.cascade[0]])]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu (the extra aot) is not installed")
def test_the_programs_of_a_tiny_model_compile_for_a_pod(config):
    reports = sampling.pipeline_reports(config, "v5e:2x2")
    assert len(reports) > 8
    for report in reports:
        assert (report.devices, report.batch_size) == (4, 4)
        assert 0 < report.used < 0.1
