"""The train state and the jitted step, the same for every stage."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from videogen_jax.models.partitioning import constrain, over
from videogen_jax.stages.stage import Batch, Metrics, Params, Stage
from videogen_jax.training.optimizer import fixed_leaves


@flax.struct.dataclass
class TrainState:
    """Everything that changes in training.

    Attributes:
      step: int32, the number of optimizer steps done.
      params: float32.
      ema: the moving average of `params`, which is what gets exported.
      opt_state: of the optimizer.
    """

    step: jax.Array
    params: Params
    ema: Params
    opt_state: optax.OptState


def init_state(stage: Stage, optimizer: optax.GradientTransformation, rng: jax.Array, batch: Batch) -> TrainState:
    """Return a fresh state; jitted with output shardings, each device creates its own part."""
    params = stage.init(rng, batch)
    return TrainState(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), optimizer.init(params))


def ema_decay_at(step: jax.Array, decay: float) -> jax.Array:
    """Return the decay of the moving average at `step`, warmed up as (1 + step) / (10 + step)."""
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def train_step(
    stage: Stage,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    accumulation: int,
    seed: int,
    state: TrainState,
    frozen: Params,
    batch: Batch,
    fixed: str = "",
) -> tuple[TrainState, Metrics]:
    """Do one optimizer step. Its random numbers are those of `fold_in(seed, step)`, so it can be repeated exactly.

    Args:
      stage: gives the loss.
      optimizer: must leave the parameters of `fixed` as they are (`make_optimizer`).
      ema_decay: of the moving average, after its warm-up.
      accumulation: n > 1 cuts the batch into n parts along its first axis, of which one at a time is in memory, and
        averages their gradients.
      seed: of the run.
      state: before the step.
      frozen: what the loss reads and does not train.
      batch: arrays `(batch_size, ...)`.
      fixed: regular expression; no gradient is taken of the parameters in whose path it is found.

    Returns: the state after the step, and scalar metrics.
    """
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    is_fixed = fixed_leaves(state.params, fixed)

    def loss(params, *inputs):
        params = jax.tree.map(lambda p, stop: jax.lax.stop_gradient(p) if stop else p, params, is_fixed)
        return stage.loss(params, *inputs)

    gradient = jax.value_and_grad(loss, has_aux=True)
    if accumulation == 1:
        (loss, metrics), grads = gradient(state.params, frozen, batch, rng)
    else:
        parts = jax.tree.map(lambda x: x.reshape(accumulation, -1, *x.shape[1:]), batch)

        def add_part(total, index_and_part):
            index, part = index_and_part
            part = jax.tree.map(lambda x: constrain(x, "batch", "frames" if x.ndim == 5 else None), part)
            result = gradient(state.params, frozen, part, jax.random.fold_in(rng, index))
            return jax.tree.map(jnp.add, total, result), None

        shapes = jax.eval_shape(gradient, state.params, frozen, jax.tree.map(lambda x: x[0], parts), rng)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        total, _ = jax.lax.scan(add_part, zeros, (jnp.arange(accumulation), parts))
        (loss, metrics), grads = jax.tree.map(lambda x: x / accumulation, total)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    decay = ema_decay_at(state.step, ema_decay)
    ema = jax.tree.map(lambda e, p: e + (p - e) * (1.0 - decay), state.ema, params)  # exact where they are the same
    metrics = {"loss": loss, "grad_norm": optax.global_norm(grads), **metrics}
    return TrainState(state.step + 1, params, ema, opt_state), metrics


def make_train_step(stage, optimizer, config, state_shardings, frozen_shardings):
    """Return `train_step`, jitted with shardings: (state, frozen, batch) -> (state, metrics).

    The batch keeps the shardings that it has (`batch_shardings`); the old state's buffers are donated.
    """
    settings = (float(config.ema_decay), int(config.accumulation), int(config.seed))
    mesh = jax.tree.leaves(state_shardings)[0].mesh

    def step(state: TrainState, frozen: Params, batch: Batch) -> tuple[TrainState, Metrics]:
        with over(mesh):
            return train_step(stage, optimizer, *settings, state, frozen, batch, config.optimizer.fixed)

    return jax.jit(
        step,
        in_shardings=(state_shardings, frozen_shardings, None),
        out_shardings=(state_shardings, None),
        donate_argnums=(0,),
    )


def count_parameters(params: Any) -> int:
    """Return the number of elements of all arrays in a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
