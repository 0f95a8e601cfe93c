import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.base import get_base_config
from videogen_jax.data.loader import take
from videogen_jax.training.optimizer import make_optimizer
from videogen_jax.training.state import count_parameters, ema_decay_at, init_state, train_step

SGD = optax.sgd(0.1)


def run(stage, state, batch, steps=1, accumulation=1, ema_decay=0.99):
    step = jax.jit(lambda state: train_step(stage, SGD, ema_decay, accumulation, 0, state, {}, batch))
    states, metrics = [state], None
    for _ in range(steps):
        state, metrics = step(state)
        states.append(state)
    return states, metrics


@pytest.fixture
def batch(source):
    return take(source, range(8))


def test_accumulated_gradient_is_that_of_the_whole_batch(stage, batch):
    stage = dataclasses.replace(stage, noise=0.0)
    state = init_state(stage, SGD, jax.random.key(0), batch)
    (_, whole), metrics = run(stage, state, batch)
    for parts in (2, 8):
        (_, actual), accumulated = run(stage, state, batch, accumulation=parts)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), actual.params, whole.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), accumulated, metrics)
    gradient = jax.grad(lambda p: stage.loss(p, {}, batch, jax.random.key(0))[0])(state.params)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole.params, expected)
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.global_norm(gradient)), rel=1e-5)


def test_every_step_and_every_part_of_a_batch_has_random_numbers_of_its_own(stage, batch):
    state = init_state(stage, SGD, jax.random.key(0), batch)
    for step, parts in ((0, 1), (1, 1), (0, 2)):
        _, metrics = train_step(stage, SGD, 0.9, parts, 5, state.replace(step=jnp.int32(step)), {}, batch)
        rng = jax.random.fold_in(jax.random.key(5), step)
        cut = [jax.tree.map(lambda x, i=i, n=8 // parts: x[i * n : (i + 1) * n], batch) for i in range(parts)]
        keys = [rng] if parts == 1 else [jax.random.fold_in(rng, i) for i in range(parts)]
        losses = [stage.loss(state.params, {}, part, key)[0] for part, key in zip(cut, keys, strict=True)]
        assert float(metrics["loss"]) == pytest.approx(float(np.mean(losses)), rel=1e-5)


def test_moving_average_follows_its_closed_form(stage, batch):
    states, _ = run(stage, init_state(stage, SGD, jax.random.key(0), batch), batch, steps=4, ema_decay=0.2)
    expected = states[0].params["layer"]["kernel"]
    for i, state in enumerate(states[1:]):
        decay = min(0.2, (1 + i) / (10 + i))
        expected = decay * expected + (1 - decay) * state.params["layer"]["kernel"]
        np.testing.assert_allclose(state.ema["layer"]["kernel"], expected, rtol=1e-5, atol=1e-6)
        assert int(state.step) == i + 1
    np.testing.assert_allclose(
        [ema_decay_at(jnp.int32(i), 0.999) for i in (0, 90, 10**6)], [0.1, 0.91, 0.999], rtol=1e-6
    )


def test_what_is_fixed_stays_bit_for_bit_and_counts_in_no_gradient(stage, batch):
    config = get_base_config().optimizer
    config.update({"warmup_steps": 0, "weight_decay": 0.1, "fixed": "kernel$"})
    optimizer = make_optimizer(config, 10)
    first = init_state(stage, optimizer, jax.random.key(0), batch)
    step = jax.jit(lambda state: train_step(stage, optimizer, 0.9, 1, 0, state, {}, batch, config.fixed))
    state = first
    for _ in range(5):
        state, _ = step(state)
    for tree in (state.params, state.ema):
        np.testing.assert_array_equal(tree["layer"]["kernel"], first.params["layer"]["kernel"])
        assert np.all(tree["layer"]["bias"] != first.params["layer"]["bias"])
    rng = jax.random.fold_in(jax.random.key(0), 0)
    gradient = jax.grad(lambda p: stage.loss(p, {}, batch, rng)[0])(first.params)["layer"]["bias"]
    _, metrics = step(first)
    np.testing.assert_allclose(metrics["grad_norm"], jnp.linalg.norm(gradient), rtol=1e-5)


def test_loss_goes_down(stage, batch):
    stage = dataclasses.replace(stage, noise=0.0)
    state = init_state(stage, SGD, jax.random.key(0), batch)
    before = stage.loss(state.params, {}, batch, jax.random.key(0))[0]
    _, metrics = run(stage, state, batch, steps=100)
    assert metrics["loss"] < 0.2 * before
    assert count_parameters(state.params) == 36
