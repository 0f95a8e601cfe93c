import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.base import get_base_config
from videogen_jax.training.optimizer import learning_rate_schedule, make_optimizer


@pytest.fixture
def settings():
    config = get_base_config().optimizer
    config.update({"learning_rate": 0.1, "warmup_steps": 10, "final_fraction": 0.02})
    return config


def test_schedule_warms_up_and_follows_a_cosine(settings):
    rate = learning_rate_schedule(settings, 110)
    np.testing.assert_allclose([rate(i) for i in (0, 5, 10)], [0, 0.05, 0.1], rtol=1e-6)
    half = 0.002 + (0.1 - 0.002) / 2
    np.testing.assert_allclose([rate(60), rate(110), rate(500)], [half, 0.002, 0.002], rtol=1e-5)


@pytest.mark.parametrize("warmup", [20, 25, -1])
def test_warmup_that_does_not_fit_is_refused(settings, warmup):
    settings.warmup_steps = warmup
    with pytest.raises(ValueError, match=f"config.optimizer.warmup_steps is {warmup}; it must be below"):
        make_optimizer(settings, 20)


def test_only_kernels_and_embeddings_are_decayed(settings):
    settings.warmup_steps = 0
    settings.weight_decay = 0.5
    params = {
        "conv": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
        "norm1": {"scale": jnp.ones(3)},
        "token_embedding": {"embedding": jnp.ones((4, 2))},
        "mix_factor": jnp.ones(1),
    }
    optimizer = make_optimizer(settings, 10)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(optimizer.update)(zeros, jax.jit(optimizer.init)(params), params)
    moved = jax.tree.map(lambda u: float(jnp.abs(u).max()), updates)
    assert moved["conv"]["kernel"] == pytest.approx(0.05)
    assert moved["token_embedding"]["embedding"] == pytest.approx(0.05)
    assert moved["conv"]["bias"] == moved["norm1"]["scale"] == moved["mix_factor"] == 0


def test_gradients_are_clipped_by_their_global_norm(settings):
    settings.update({"warmup_steps": 0, "weight_decay": 0.0, "clip_norm": 1.0})
    optimizer = make_optimizer(settings, 10)
    params = {"a": jnp.zeros((1, 2)), "b": jnp.zeros(2)}
    large = {"a": jnp.full((1, 2), 300.0), "b": jnp.full(2, -400.0)}
    _, state = jax.jit(optimizer.update)(large, jax.jit(optimizer.init)(params), params)
    mu = optax.tree.get(state, "mu")
    norm = optax.global_norm(mu) / (1 - settings.b1)
    np.testing.assert_allclose(norm, 1.0, rtol=1e-5)
    np.testing.assert_allclose(mu["b"][0] / mu["a"][0, 0], -4 / 3, rtol=1e-5)


PARAMS = {"unet": {"conv": {"kernel": jnp.ones((2, 3))}, "temporal_conv": {"kernel": jnp.full((2, 3), 2.0)}}}


def test_fixed_parameters_are_neither_moved_nor_decayed_nor_counted_in_clipping(settings):
    settings.update({"warmup_steps": 0, "weight_decay": 0.5, "fixed": r"^unet/conv/"})
    optimizer = make_optimizer(settings, 10)
    grads = {"unet": {"conv": {"kernel": jnp.full((2, 3), 1e6)}, "temporal_conv": {"kernel": jnp.full((2, 3), 0.1)}}}
    updates, state = jax.jit(optimizer.update)(grads, jax.jit(optimizer.init)(PARAMS), PARAMS)
    assert not np.any(updates["unet"]["conv"]["kernel"])
    # The first step of AdamW is the rate times the sign of the gradient and the decay.
    np.testing.assert_allclose(updates["unet"]["temporal_conv"]["kernel"], -0.1 * (1 + 0.5 * 2), rtol=1e-5)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert len(moments) == 2  # both of the one kernel that is trained
    np.testing.assert_allclose(moments[0], 0.1 * (1 - settings.b1), rtol=1e-5)  # the norm, 0.24, was not clipped


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("unet", "config.optimizer.fixed, 'unet', is found in all parameters; it must be found in some"),
        ("vae/", r"is found in none of the parameters, whose paths are such as unet/conv/kernel"),
        ("(vae", "config.optimizer.fixed, '\\(vae', is not a regular expression: missing"),
    ],
)
def test_a_pattern_that_fixes_nothing_or_all_is_refused(settings, pattern, message):
    settings.fixed = pattern
    with pytest.raises(ValueError, match=message):
        make_optimizer(settings, 20).init(PARAMS)


def test_a_pattern_is_read_before_there_are_parameters(settings):
    settings.fixed = "["
    with pytest.raises(ValueError, match="not a regular expression"):
        make_optimizer(settings, 20)
