"""Turn a corpus of videos and captions into a data set of latents that the stages train on.

    python -m videogen_jax.prepare --config configs/webvid/prepare.py --config.model_folder=stable-diffusion-v1-5

An interrupted run continues where it stopped; a finished one does nothing. `--shard 3/16` prepares the fourth of
sixteen parts, for sixteen processes that are started by any scheduler and do not communicate; `--distributed` takes the
part from jax.distributed (videogen_jax/training/distributed.py). The last process to end completes the data set. Any
field of the config can be set on the command line: `--config.corpus.folder=videos`.
"""

import os

from absl import app, flags, logging
from ml_collections import config_flags

from videogen_jax.runtime.command_line import fail, parse

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/webvid/prepare.py")
SHARD = flags.DEFINE_string("shard", None, "This process's part i/n, from 0/n to n-1/n")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Take this process's part from jax.distributed")


def main(argv: list[str]) -> None:
    del argv
    from videogen_jax.data.preparing import prepare_from
    from videogen_jax.runtime import compilation_cache
    from videogen_jax.runtime.backend import check_backend
    from videogen_jax.training import distributed

    compilation_cache.enable()
    try:
        process, num_processes = distributed.parse_shard(SHARD.value)
        if DISTRIBUTED.value:
            if SHARD.value is not None:
                raise ValueError("--shard and --distributed exclude each other")
            process, num_processes = distributed.initialize()
        check_backend()
        finished = prepare_from(CONFIG.value, process, num_processes, os.cpu_count() or 1)
    except (ValueError, OSError) as error:
        fail(error)
    if not finished:
        logging.info("This process's part is finished; the data set is complete once all parts are.")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse)
