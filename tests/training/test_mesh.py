from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from videogen_jax.training.mesh import batch_sharding, make_mesh, shardings_for
from videogen_jax.training.parameter_paths import path_name

ROOT = Path(__file__).parents[2]


def test_mesh_of_one_device():
    devices = jax.devices()[:1]
    for sizes in ({"data": -1}, {"fsdp": 1, "tensor": -1}, {}):
        mesh = make_mesh(sizes, devices)
        assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "frames": 1, "tensor": 1}
    assert batch_sharding(mesh).spec == P(("data", "fsdp"))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"model": 1}, "config.mesh has no axis model; the axes are data, fsdp, frames, tensor"),
        ({"data": -1, "fsdp": -1}, "config.mesh.data and config.mesh.fsdp are -1; only one of them may be"),
        ({"data": 0}, "config.mesh.data is 0; it must be positive, or -1"),
        ({"data": 3}, "config.mesh.data is 3, which does not divide the 1 devices"),
        ({"data": -1, "fsdp": 2}, "config.mesh.fsdp is 2, which does not divide the 1 devices"),
    ],
)
def test_mesh_that_does_not_fit_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(sizes, jax.devices()[:1])


def test_first_matching_rule_places_the_last_axes():
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)  # noqa: E731
    tree = {
        "attn": {"kernel": shape(8, 4), "bias": shape(4)},
        "conv": {"kernel": shape(3, 3, 8, 4)},
        "table": {"embedding": shape(6, 4)},
        "norm": {"scale": shape(4)},
    }
    mesh = make_mesh({}, jax.devices()[:1])
    rules = (("attn/kernel$", (None, "tensor")), ("kernel$", ("fsdp", "tensor")), ("bias$", ("data", "fsdp")))
    specs = jax.tree.map(lambda s: s.spec, shardings_for(tree, rules, mesh))
    assert specs["attn"]["kernel"] == P(None, "tensor")
    assert specs["conv"]["kernel"] == P(None, None, "fsdp", "tensor")
    # A rule with more axes than the leaf is passed over, and what no rule names is whole.
    assert specs["attn"]["bias"] == specs["table"]["embedding"] == specs["norm"]["scale"] == P()


def test_rule_with_an_unknown_axis_is_refused():
    with pytest.raises(ValueError, match=r"config.sharding_rules: 'x' names the axis model, not one of"):
        shardings_for({"x": jnp.ones(2)}, (("x", ("model",)),), make_mesh({}, jax.devices()[:1]))


def test_paths_are_joined_by_slashes():
    leaves, _ = jax.tree_util.tree_flatten_with_path({"unet": {"conv_in": {"kernel": 1}}, "list": [2]})
    assert [path_name(path) for path, _ in leaves] == ["list/0", "unet/conv_in/kernel"]


FOUR_DEVICES = """
import re
import jax, numpy as np, optax
from configs.base import get_base_config
from videogen_jax.training.build import build_stage
from videogen_jax.training.mesh import batch_sharding, make_mesh, shardings_for
from videogen_jax.training.parameter_paths import path_name
from videogen_jax.training.state import init_state, make_train_step

assert jax.device_count() == 4
text = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 32, "num_layers": 1, "num_heads": 2,
        "eos_token_id": 19, "max_positions": 8, "projection_dim": 16}
stage = build_stage("text", {"text_encoder": text, "video_channels": (8,)})
rng = np.random.default_rng(0)
batch = {"tokens": rng.integers(0, 20, (4, 8)).astype(np.int32),
         "video": rng.integers(0, 256, (4, 2, 4, 4, 3)).astype(np.uint8)}
optimizer, config = optax.sgd(0.1), get_base_config()
shapes = jax.eval_shape(lambda rng: init_state(stage, optimizer, rng, batch), jax.random.key(0))
results = []
for sizes, devices in (({}, jax.devices()[:1]), ({"fsdp": 2, "tensor": -1}, None)):
    mesh = make_mesh(sizes, devices)
    where = shardings_for(shapes, config.sharding_rules, mesh, 16, trained=True)
    state = jax.jit(lambda rng: init_state(stage, optimizer, rng, batch), out_shardings=where)(jax.random.key(0))
    held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state.params))
    step = make_train_step(stage, optimizer, config, where, {})
    state, metrics = step(state, {}, jax.device_put(batch, batch_sharding(mesh)))
    results.append((dict(mesh.shape), float(metrics["loss"]), float(metrics["grad_norm"]), held,
                    jax.tree.map(np.asarray, state.params)))
(_, loss, norm, held, params), (sizes, other_loss, other_norm, other_held, other_params) = results
np.testing.assert_allclose(other_loss, loss, rtol=1e-5)
np.testing.assert_allclose(other_norm, norm, rtol=1e-4)
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), other_params, params)
# All is over fsdp, and over tensor besides what the rules name; a few biases are too small.
named = sum(x.nbytes for path, x in jax.tree_util.tree_flatten_with_path(params)[0]
            if any(re.search(rule, path_name(path)) for rule, _ in config.sharding_rules))
promised = (held - named + named / sizes["tensor"]) / sizes["fsdp"]
assert 0 < named < held and promised <= other_held < promised * 1.05, (sizes, other_held, promised, held)
print(sizes)
"""


def test_sharded_step_is_that_of_one_device_and_each_device_holds_its_part(run_command):
    """test_sharding.py has a mesh with `data`; here are the fresh state and every parameter after a step."""
    result = run_command("-c", FOUR_DEVICES, devices=4)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "{'data': 1, 'fsdp': 2, 'frames': 1, 'tensor': 2}\n"
