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
    """All that changes in training. `ema` is the moving average of `params`, which is what gets exported."""

    step: jax.Array
    params: Params
    ema: Params
    opt_state: optax.OptState


def init_state(stage: Stage, optimizer: optax.GradientTransformation, rng: jax.Array, batch: Batch) -> TrainState:
    """Fresh state. Under `jax.eval_shape` it gives shapes alone; jitted with output shardings it is made in place."""
    params = stage.init(rng, batch)
    return TrainState(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), optimizer.init(params))


def ema_decay_at(step: jax.Array, decay: float) -> jax.Array:
    """The decay of the moving average at `step`, warmed up as (1 + step) / (10 + step) so that it starts near zero."""
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
    """One optimizer step. The random numbers are those of `fold_in(seed, step)`, so a step can be repeated exactly.

    With `accumulation` n > 1 the batch is cut into n parts along its first axis and their gradients averaged, one part
    in memory at a time. No gradient is taken of parameters in whose path the regular expression `fixed` is found; the
    optimizer must be one that leaves them, too.
    """
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    still = fixed_leaves(state.params, fixed)

    def loss(params, *inputs):
        params = jax.tree.map(lambda p, is_fixed: jax.lax.stop_gradient(p) if is_fixed else p, params, still)
        return stage.loss(params, *inputs)

    gradient = jax.value_and_grad(loss, has_aux=True)
    if accumulation == 1:
        (loss, metrics), grads = gradient(state.params, frozen, batch, rng)
    else:
        parts = jax.tree.map(lambda x: x.reshape(accumulation, -1, *x.shape[1:]), batch)

        def one(total, index_and_part):
            index, part = index_and_part
            part = jax.tree.map(lambda x: constrain(x, "batch", "frames" if x.ndim == 5 else None), part)
            result = gradient(state.params, frozen, part, jax.random.fold_in(rng, index))
            return jax.tree.map(jnp.add, total, result), None

        shapes = jax.eval_shape(gradient, state.params, frozen, jax.tree.map(lambda x: x[0], parts), rng)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        total, _ = jax.lax.scan(one, zeros, (jnp.arange(accumulation), parts))
        (loss, metrics), grads = jax.tree.map(lambda x: x / accumulation, total)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    decay = ema_decay_at(state.step, ema_decay)
    ema = jax.tree.map(lambda e, p: e + (p - e) * (1.0 - decay), state.ema, params)  # exact where they are the same
    metrics = {"loss": loss, "grad_norm": optax.global_norm(grads), **metrics}
    return TrainState(state.step + 1, params, ema, opt_state), metrics


def make_train_step(stage, optimizer, config, state_shardings, frozen_shardings):
    """`train_step` jitted with shardings, for batches that lie as they are to; the old state's buffers are donated."""
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
    """Number of scalars in a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
