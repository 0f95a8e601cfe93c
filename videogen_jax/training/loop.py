"""The training loop, the same for all stages: from a config to a finished run."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import NamedSharding, PartitionSpec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from videogen_jax.data.loader import Source, make_loader, take
from videogen_jax.data.position import DataOrder, position, restore_position
from videogen_jax.runtime.arrays import to_uint8
from videogen_jax.runtime.durable_files import write_json_durably
from videogen_jax.stages.stage import Params, Stage
from videogen_jax.training.checkpoints import Checkpoints, abstract_state
from videogen_jax.training.config_checks import check_at_least, check_retention
from videogen_jax.training.mesh import check_batch, local_examples, make_mesh, place, place_batch, step_shardings
from videogen_jax.training.optimizer import learning_rate_schedule, make_optimizer
from videogen_jax.training.preemption import Preempted, Preemption
from videogen_jax.training.profiling import Profile, device_memory
from videogen_jax.training.samples import column_order, comparison
from videogen_jax.training.state import TrainState, count_parameters, init_state, make_train_step
from videogen_jax.training.writers import MetricsWriter

Decode = Callable[[jax.Array], jax.Array]


class TrainingDiverged(RuntimeError):
    """The loss is no longer finite."""


def check_settings(config: Any) -> None:
    """Check what can be checked of a config before its data are prepared, which may take hours.

    Raises:
      ValueError: naming the field that cannot work.
    """
    check_at_least(config, 1, "steps", "batch_size", "accumulation", "log_every", "sample_every", "sample_count")
    check_retention(config)
    make_mesh(config.mesh)
    make_optimizer(config.optimizer, config.steps)


def train(
    config: Any,
    stage: Stage,
    source: Source,
    workdir: str | Path,
    frozen: Params | None = None,
    decode: Decode | None = None,
    initial_params: Callable[[Params], Params] | None = None,
    stop_after: int | None = None,
    images: Source | None = None,
    profile_steps: range | None = None,
) -> TrainState:
    """Train `stage` until `config.steps`, from the newest good checkpoint in `workdir` if there is one.

    Args:
      config: a training config (configs/base.py lists the fields).
      stage: what is trained.
      source: training examples; if it has a method `caption(index)`, sample videos have their captions above.
      workdir: receives config.json, metrics.jsonl, TensorBoard events and checkpoints/; of several processes the first
        writes everything but the others' parts of the checkpoints.
      frozen: pytree that the loss reads and does not train.
      decode: latents `(..., h, w, C)` -> frames in [-1, 1], for the sample videos; None: latents are not shown.
      initial_params: turns fresh parameters into those to start from (a public checkpoint's); not called on resume.
      stop_after: stop at this step as if interrupted; the schedules still run to `config.steps`.
      images: examples of one frame, which make up `config.image_fraction` of the batches.
      profile_steps: steps of which a profile is written into workdir/profile.

    Returns: the final state.

    Raises:
      ValueError: the config does not fit itself, the devices, the data or the checkpoint.
      TrainingDiverged: at the first logged step whose loss or gradient is not finite, naming step and stage.
      Preempted: on a signal; the step that it names is saved.
      CannotSave: a checkpoint cannot be written; those before it are good.
    """
    check_settings(config)
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    is_first_process = jax.process_index() == 0
    if is_first_process:
        write_json_durably(workdir / "config.json", config.to_dict())
    frozen = {} if frozen is None else frozen

    mesh = make_mesh(config.mesh)
    sample_indices = range(min(config.sample_count, len(source)))
    example = take(source, sample_indices)
    check_batch(config, mesh, example)
    local = local_examples(mesh, config.batch_size)
    loader = make_loader(
        source,
        config.batch_size,
        config.seed,
        local,
        num_threads=config.loader_threads,
        images=images,
        image_fraction=config.image_fraction,
    )
    counts = tuple(len(examples) for examples in (source, images) if examples is not None)
    order = DataOrder(config.seed, config.batch_size, counts, config.image_fraction)
    captions = [source.caption(index) or "" for index in sample_indices] if hasattr(source, "caption") else None

    optimizer = make_optimizer(config.optimizer, config.steps)
    init_rng = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 1)  # no step has this number
    shapes = jax.eval_shape(lambda rng: init_state(stage, optimizer, rng, example), init_rng)
    state_shardings, frozen_shardings = step_shardings(config, mesh, shapes, frozen)
    frozen = place(frozen, frozen_shardings)
    step_fn = make_train_step(stage, optimizer, config, state_shardings, frozen_shardings)

    checkpoints = Checkpoints(workdir, config.keep_checkpoints, config.keep_every)
    if checkpoints.latest is not None:
        state, saved_position = checkpoints.restore(abstract_state(shapes, state_shardings))
        restore_position(loader, len(local), order, saved_position)
    else:
        create = jax.jit(lambda rng: init_state(stage, optimizer, rng, example), out_shardings=state_shardings)
        state = create(init_rng)
        if initial_params is not None:
            params = place(initial_params(state.params), state_shardings.params)
            state = state.replace(params=params, ema=jax.tree.map(jnp.copy, params))
    first = int(state.step)
    logging.info("%s: %.2f M parameters, step %d", config.stage, count_parameters(state.params) / 1e6, first)

    writer = MetricsWriter(workdir, first, enabled=is_first_process)
    writer.config(config.to_dict())
    learning_rate = learning_rate_schedule(config.optimizer, config.steps)
    preview = jax.jit(stage.sample, out_shardings=NamedSharding(mesh, PartitionSpec()))  # whole in every process
    last = config.steps if stop_after is None else min(config.steps, stop_after)
    profile = Profile(workdir, profile_steps if is_first_process else None)
    # Since the last log: when it was, seconds waited for data, the step.
    since, waited, counted = time.perf_counter(), 0.0, first
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    try:
        with Preemption(jax.process_count()) as preemption, Progress(*columns, disable=not is_first_process) as bar:
            task = bar.add_task(config.stage, total=config.steps, completed=first, status="compiling")
            for step in range(first + 1, last + 1):
                requested = time.perf_counter()
                batch = place_batch(next(loader), mesh, local, config.batch_size)
                waited += time.perf_counter() - requested
                with profile.step(step):
                    state, metrics = step_fn(state, frozen, batch)
                profile.after(step, state)
                stop = preemption.requested(step) and step < config.steps
                saved = step % config.checkpoint_every == 0 or step == last or stop
                if step % config.log_every == 0 or saved or step == first + 1:
                    values = {name: float(value) for name, value in metrics.items()}
                    check_finite(values, step, config.stage)  # always before a checkpoint, so that none holds a NaN
                    elapsed = time.perf_counter() - since
                    values["learning_rate"] = float(learning_rate(step - 1))
                    values["steps_per_second"] = (step - counted) / elapsed
                    values["clips_per_second"] = (step - counted) * config.batch_size / elapsed
                    values["data_wait"] = waited / elapsed
                    values |= device_memory()
                    since, waited, counted = time.perf_counter(), 0.0, step
                    writer.scalars(step, values)
                    bar.update(task, status=f"loss {values['loss']:.4f}, {values['steps_per_second']:.2f} steps/s")
                bar.update(task, completed=step)
                if saved:
                    checkpoints.save(state, position(loader, len(local), order))
                if stop:
                    checkpoints.wait()
                    raise Preempted(step, preemption.signal)
                checkpoints.raise_if_failed()
                if step % config.sample_every == 0 or step == config.steps:
                    samples = preview(state.ema, frozen, example, jax.random.key(config.seed))
                    if is_first_process:
                        write_samples(writer, step, jax.tree.map(np.asarray, samples), decode, captions)
                    since, waited, counted = time.perf_counter(), 0.0, step
        checkpoints.wait()
    finally:
        profile.close()
        checkpoints.close()
        writer.close()
    return state


def check_finite(values: dict[str, float], step: int, stage: str) -> None:
    """Raise TrainingDiverged if the loss or the gradient is NaN or infinite."""
    for name in ("loss", "grad_norm"):
        if not np.isfinite(values[name]):
            raise TrainingDiverged(
                f"stage {stage}: {name} is {values[name]} at step {step}; the last checkpoint is from before it. "
                "Lower config.optimizer.learning_rate or config.optimizer.clip_norm and start again."
            )


def write_samples(
    writer: MetricsWriter, step: int, samples: dict[str, np.ndarray], decode: Decode | None, captions: list[str] | None
) -> None:
    """Write the arrays of `Stage.sample` as one looping picture named by its columns; latents are decoded first.

    Args:
      samples: name of a column -> frames `(B, T, H, W, 3)` in [-1, 1], or latents, or single frames `(B, H, W, 3)`.
      decode: latents -> frames; None leaves latents out.
      captions: B texts, or None.
    """
    columns = {}
    for name, array in samples.items():
        if array.shape[-1] != 3:
            if decode is None:
                continue
            array = decode(array)
        video = np.asarray(to_uint8(array))
        columns[name] = video[:, None] if video.ndim == 4 else video
    if columns:
        writer.video(step, "samples/" + " | ".join(column_order(columns)), comparison(columns, captions))
    writer.flush()
