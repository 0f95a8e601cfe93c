"""A small run of training for several processes, as `videogen_jax.train` makes it of its flags.

    python tests/training/process_run.py WORKDIR STEPS MESH [PROCESSES INDEX PORT]

Trains a network of two layers, which every axis of a mesh can be spread over, and writes the final parameters.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from configs.base import get_base_config
from videogen_jax.training import distributed
from videogen_jax.training.loop import train


@dataclasses.dataclass(frozen=True)
class VideoStage:
    """Two layers on every frame, trained on targets with fresh noise."""

    def init(self, rng, batch):
        one, two = jax.random.split(rng)
        return {
            "fc1": {"kernel": 0.3 * jax.random.normal(one, (4, 16))},
            "fc2": {"kernel": 0.3 * jax.random.normal(two, (16, 4))},
        }

    def loss(self, params, frozen, batch, rng):
        output = jnp.tanh(batch["video"] @ params["fc1"]["kernel"]) @ params["fc2"]["kernel"]
        error = output - jnp.roll(batch["video"], 1, axis=1) - 0.3 * jax.random.normal(rng, output.shape)
        return jnp.mean(error**2), {}

    def sample(self, params, frozen, batch, rng):
        return {"video": batch["video"][..., :3]}

    def parts(self):
        return {}


class VideoSource:
    def __len__(self):
        return 24

    def __getitem__(self, index):
        return {"video": np.random.default_rng(index).normal(size=(4, 6, 6, 4)).astype(np.float32)}


def main() -> None:
    workdir, steps, mesh, *rest = sys.argv[1:]
    if rest:
        processes, index, port = map(int, rest)
        distributed.initialize(f"localhost:{port}", processes, index, 10)
    config = get_base_config()
    config.stage, config.steps, config.batch_size, config.fsdp_min_size = "video", 12, 4, 16
    config.optimizer.warmup_steps, config.optimizer.learning_rate = 1, 0.01
    config.log_every, config.checkpoint_every, config.sample_every = 1, 4, 1000
    config.mesh.update(json.loads(mesh))
    with distributed.ending_together(jax.process_count()):
        state = train(config, VideoStage(), VideoSource(), workdir, stop_after=int(steps))
        from jax.experimental import multihost_utils

        whole = jax.tree.map(np.asarray, multihost_utils.process_allgather(state.params, tiled=True))
        if jax.process_index() == 0:
            np.savez(Path(workdir) / "final.npz", **{name: layer["kernel"] for name, layer in whole.items()})


if __name__ == "__main__":
    main()
