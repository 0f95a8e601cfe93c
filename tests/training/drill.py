"""`videogen_jax.train` with the smallest stage in the place of a configured one, to be killed, starved and resumed.

    python tests/training/drill.py --config=tests/training/drill.py --workdir=... --config.steps=200

It starts in few seconds, since it imports no networks. The last line of its output is the digest of the final state.
"""

import dataclasses
import hashlib
import os
import sys
import time
import types
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, __file__, f"--config={__file__}")


def get_config(arg: str = ""):
    from ml_collections import ConfigDict

    from configs.base import get_base_config

    config = get_base_config()
    config.stage = "linear"
    config.steps, config.batch_size = 200, 4
    config.optimizer.warmup_steps = 1
    config.log_every, config.sample_every, config.checkpoint_every = 1, 10**9, 5
    # Numbers trained beside, which make a checkpoint large, and seconds that an example takes, which make steps slow.
    config.model = ConfigDict({"ballast": 100_000, "pause": 0.005})
    return config


@dataclasses.dataclass(frozen=True)
class Stage:
    """Linear regression with fresh noise at every step, the same for all rows, and a vector that follows noise."""

    ballast: int

    def init(self, rng, batch):
        import jax

        kernel = jax.random.normal(rng, (8, 4))
        return {"kernel": kernel, "ballast": jax.random.normal(jax.random.fold_in(rng, 1), (self.ballast,))}

    def loss(self, params, frozen, batch, rng):
        import jax

        error = batch["x"] @ params["kernel"] - batch["y"] + 0.1 * jax.random.normal(rng, batch["y"].shape[1:])
        drift = params["ballast"] - jax.random.normal(rng, params["ballast"].shape)
        return (error**2).mean() + (drift**2).mean(), {"l1": abs(error).mean()}

    def sample(self, params, frozen, batch, rng):
        return {}


@dataclasses.dataclass(frozen=True)
class Source:
    pause: float

    def __len__(self):
        return 24

    def __getitem__(self, index):
        time.sleep(self.pause)
        x = np.random.default_rng(index).normal(size=8).astype(np.float32)
        return {"x": x, "y": np.resize(x, 4)}


def digest(state) -> str:
    """SHA-256 of all that changes in training."""
    import jax

    whole = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        whole.update(jax.tree_util.keystr(path).encode())
        whole.update(np.asarray(leaf).tobytes())
    return whole.hexdigest()


def run(config, workdir, profile_steps=None):
    import jax

    from videogen_jax.training import distributed
    from videogen_jax.training.loop import train

    if "JAX_NUM_PROCESSES" in os.environ and not jax.distributed.is_initialized():
        distributed.initialize()
    parts = Stage(config.model.ballast), Source(config.model.pause)
    state = train(config, *parts, workdir, profile_steps=profile_steps)
    print(digest(state))
    return state


def environment(cache: Path) -> dict[str, str]:
    """Variables for the process: one that compiled the step before leaves it for the next in the folder `cache`."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


if __name__ == "__main__":
    sys.modules["videogen_jax.training.run"] = types.ModuleType("videogen_jax.training.run")
    sys.modules["videogen_jax.training.run"].run = run

    from absl import app

    from videogen_jax import train as command

    app.run(command.main, flags_parser=command.parse)
