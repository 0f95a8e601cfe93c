"""Train one stage.

    python -m videogen_jax.train --config configs/shapes/autoencoder.py --workdir runs/shapes/autoencoder

Started again with the same --workdir, it resumes from the newest good checkpoint. On SIGTERM it saves and exits with
status 75, which means "start me again" (docs/training.md, "Interrupted runs"). Any field of the config can be set on
the command line, as in `--config.batch_size=16`; `--help` after --config lists them all with their values.

On a TPU pod and under Slurm the same command, started on every host, finds the other processes by itself; elsewhere
each needs --coordinator, --num_processes and --process_id (docs/distributed.md).

    python -m videogen_jax.train --config configs/webvid/cascade.py:resolution=16,hardware=v5e --aot_topology v5e:16x16

does not train: it compiles the step for that TPU pod on this machine and reports what it needs (docs/scaling.md).
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from videogen_jax.runtime.command_line import fail, parse
from videogen_jax.training.preemption import Preempted, exit_on_sigterm

CONFIG = config_flags.DEFINE_config_file("config", None, "Training config, e.g. configs/shapes/autoencoder.py")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints and metrics; a run in it is resumed")
COORDINATOR = flags.DEFINE_string("coordinator", None, "Of several processes: host:port of the first")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --coordinator: how many there are", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --coordinator: which one this is, from 0", lower_bound=0)
HEARTBEAT_TIMEOUT = flags.DEFINE_integer(
    "heartbeat_timeout", 30, "Seconds without a sign of life of one process after which the others end", lower_bound=1
)
PROFILE_STEPS = flags.DEFINE_string(
    "profile_steps", None, "Steps of which a profile for XProf or TensorBoard is written, as 100:105"
)
AOT_TOPOLOGY = flags.DEFINE_string("aot_topology", None, "Only compile the step for this TPU pod, e.g. v5e:16x16")
AOT_OUTPUT = flags.DEFINE_string("aot_output", None, "With --aot_topology: a file for what was found, as JSON")
AOT_EFFORT = flags.DEFINE_enum(
    "aot_effort", "fast", ["fast", "full"], "With --aot_topology: full compiles as for a run, which may take hours"
)


def main(argv: list[str]) -> None:
    del argv
    if AOT_TOPOLOGY.value is not None:
        compile_only()
        return
    if WORKDIR.value is None:
        fail("--workdir must be given")
    if "://" in WORKDIR.value:
        fail(f"--workdir {WORKDIR.value} is an address; it must be a folder, such as one where the bucket is mounted")
    from videogen_jax.training import distributed

    given = (COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    try:
        process, num_processes = distributed.initialize_if_configured(*given, HEARTBEAT_TIMEOUT.value)
    except ValueError as error:
        fail(error)
    if process:
        logging.set_verbosity(logging.WARNING)  # the first one tells what all do
    with distributed.ending_together(num_processes):
        train()


def train() -> None:
    """Train the stage of --config; an error that a user can mend ends the program with one sentence."""
    from videogen_jax.runtime import compilation_cache
    from videogen_jax.runtime.backend import check_backend
    from videogen_jax.runtime.host_memory import keep_freed_memory
    from videogen_jax.training.checkpoints import CannotSave
    from videogen_jax.training.loop import TrainingDiverged
    from videogen_jax.training.profiling import parse_steps
    from videogen_jax.training.run import run

    keep_freed_memory(one_heap=True)
    try:
        check_backend()
        compilation_cache.enable()  # a run that goes on, as after a preemption, compiles nothing
        steps = None if PROFILE_STEPS.value is None else parse_steps(PROFILE_STEPS.value)
        run(CONFIG.value, WORKDIR.value, profile_steps=steps)
    except Preempted as stopped:
        logging.warning("%s", stopped)
        sys.exit(stopped.status)
    except (TrainingDiverged, CannotSave) as error:
        fail(error, status=1)
    except (ValueError, OSError) as error:
        fail(error)


def compile_only() -> None:
    """Report on the training step for the pod of --aot_topology."""
    from videogen_jax.scaling import training

    try:
        effort = training.FAST if AOT_EFFORT.value == "fast" else training.FULL
        training.write([training.train_report(CONFIG.value, AOT_TOPOLOGY.value, effort)], AOT_OUTPUT.value)
    except (ValueError, OSError) as error:
        fail(error)


if __name__ == "__main__":
    exit_on_sigterm()  # before the config is read, which imports JAX
    flags.mark_flags_as_required(["config"])
    app.run(main, flags_parser=parse)
