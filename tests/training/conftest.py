import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import get_base_config


@dataclasses.dataclass(frozen=True)
class LinearStage:
    """The smallest stage: linear regression, on targets with fresh noise at every step."""

    noise: float = 0.5

    def init(self, rng, batch):
        return {"layer": {"kernel": jax.random.normal(rng, (8, 4)), "bias": jnp.zeros(4)}}

    def loss(self, params, frozen, batch, rng):
        output = batch["x"] @ params["layer"]["kernel"] + params["layer"]["bias"]
        error = output - batch["y"] - self.noise * jax.random.normal(rng, output.shape)
        return jnp.mean(error**2), {"l1": jnp.mean(jnp.abs(error))}

    def sample(self, params, frozen, batch, rng):
        picture = jnp.tanh(batch["x"] @ params["layer"]["kernel"])[:, :, None, None] * jnp.ones((1, 1, 6, 4))
        return {"latents": picture, "picture": picture[..., :3]}

    def parts(self):
        return {"layer": ("layer", {})}


@dataclasses.dataclass(frozen=True)
class LinearSource:
    """Pairs of x and y = x @ (a fixed matrix); the example `poisoned` is not a number."""

    poisoned: int = -1

    def __len__(self):
        return 24

    def __getitem__(self, index):
        x = np.random.default_rng(index).normal(size=8).astype(np.float32)
        matrix = np.random.default_rng(99).normal(size=(8, 4)).astype(np.float32)
        bad = np.float32(np.nan if index == self.poisoned else 0)
        return {"x": x, "y": x @ matrix + bad, "index": np.int32(index)}


@pytest.fixture
def stage():
    return LinearStage()


@pytest.fixture
def source():
    return LinearSource()


@pytest.fixture
def config():
    config = get_base_config()
    config.stage = "linear"
    config.steps = 6
    config.batch_size = 4
    config.optimizer.learning_rate = 0.05
    config.optimizer.warmup_steps = 1
    config.log_every = 1
    config.checkpoint_every = 2
    config.sample_every = 100
    config.sample_count = 2
    return config
