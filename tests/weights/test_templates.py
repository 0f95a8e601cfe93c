import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from videogen_jax.weights.templates import parameter_shapes


class Network(nn.Module):
    features: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        if self.features < 0:
            raise ValueError("features must not be negative")
        return nn.Dense(self.features, dtype=self.dtype, name="proj")(x)


X = jax.ShapeDtypeStruct((2, 5), jnp.float32)


@pytest.fixture
def set_cache():
    """Sets the folder of the compilation cache until the test is over."""
    jax.random.key(0)  # JAX opens its cache of programs once, and is not to do so in a folder of these tests
    before = jax.config.jax_compilation_cache_dir
    yield lambda folder: jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def cache(set_cache, tmp_path):
    set_cache(str(tmp_path))
    return tmp_path


def shapes_of(network, x=X):
    traced = []

    def init(*args):
        traced.append(True)
        return network.init(*args)

    return parameter_shapes(network, init, x), bool(traced)


def test_a_network_is_traced_once(cache):
    expected = jax.eval_shape(Network().init, jax.random.key(0), X)
    for traces in (True, False, False):
        shapes, traced = shapes_of(Network())
        assert shapes == expected
        assert traced == traces


@pytest.mark.parametrize(
    ("network", "x"),
    [
        (Network(features=4), X),
        (Network(dtype=jnp.bfloat16), X),
        (Network(), jax.ShapeDtypeStruct((2, 6), jnp.float32)),
    ],
)
def test_another_field_or_input_is_another_template(cache, network, x):
    shapes_of(Network())
    shapes, traced = shapes_of(network, x)
    assert traced
    assert shapes == jax.eval_shape(network.init, jax.random.key(0), x)


def test_nothing_is_stored_without_a_cache(set_cache):
    set_cache(None)
    assert [shapes_of(Network())[1] for _ in range(2)] == [True, True]


def test_fields_that_do_not_fit_raise_every_time(cache):
    for _ in range(2):
        with pytest.raises(ValueError, match="must not be negative"):
            shapes_of(Network(features=-1))
    assert not list(cache.iterdir())


@pytest.mark.parametrize("damaged", ["", "{", json.dumps({"params": 3})])
def test_a_damaged_file_is_ignored(cache, caplog, damaged):
    expected, _ = shapes_of(Network())
    (file,) = cache.iterdir()
    file.write_text(damaged)
    assert shapes_of(Network()) == (expected, True)
    assert f"{file} is ignored" in caplog.text
    assert shapes_of(Network()) == (expected, False)


def test_a_cache_that_cannot_be_written_is_no_failure(set_cache, tmp_path, caplog):
    set_cache(str(tmp_path / "gone"))
    assert shapes_of(Network())[1]
    assert "is not stored" in caplog.text


def test_a_later_process_finds_the_embedded_models_shapes(tmp_path, run_command):
    code = """
import sys
import jax
from videogen_jax.runtime import compilation_cache
from videogen_jax.weights.hub import EMBEDDED, resolve
from videogen_jax.weights.parts import load_text_encoder
compilation_cache.enable(sys.argv[1])
if "traced" not in sys.argv:
    jax.eval_shape = None  # is not called
load_text_encoder(resolve(EMBEDDED))
"""
    for arguments in (["traced"], []):
        done = run_command("-c", code, tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
