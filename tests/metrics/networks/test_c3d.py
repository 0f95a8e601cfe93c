"""C3D against a PyTorch module on random weights, and its preprocessing against the protocol's arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.metrics.networks.random_weights import randomize, tensors
from videogen_jax.metrics.networks import c3d
from videogen_jax.weights.naming import from_public

HIDDEN, SIDE = 24, 48  # sides 48, 24, 12, 6, 3 and then, rounded up, 2
LAYERS = [
    ("conv1a", 3, 64),
    ("conv2a", 64, 128),
    ("conv3a", 128, 256),
    ("conv3b", 256, 256),
    ("conv4a", 256, 512),
    ("conv4b", 512, 512),
    ("conv5a", 512, 512),
    ("conv5b", 512, 512),
]


class TorchC3D(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name, inside, outside in LAYERS:
            self.add_module(name, torch.nn.Conv3d(inside, outside, 3, padding=1))
        self.fc6 = torch.nn.Linear(512 * 2 * 2, HIDDEN)
        self.fc7 = torch.nn.Linear(HIDDEN, HIDDEN)
        self.fc8 = torch.nn.Linear(HIDDEN, 101)

    def forward(self, x):
        for name, _, _ in LAYERS:
            x = F.relu(getattr(self, name)(x))
            if name == "conv1a":
                x = F.max_pool3d(x, (1, 2, 2), ceil_mode=True)
            elif name not in ("conv3a", "conv4a", "conv5a"):
                x = F.max_pool3d(x, 2, ceil_mode=True)
        x = F.relu(self.fc6(x.flatten(1)))
        return self.fc8(F.relu(self.fc7(x)))


def test_parity_and_the_names_of_chainer():
    network = randomize(TorchC3D())
    video = np.random.default_rng(0).uniform(-1, 1, (1, 16, SIDE, SIDE, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(video.transpose(0, 4, 1, 2, 3))).numpy()
    flax = c3d.C3D(hidden=HIDDEN)
    template = jax.eval_shape(flax.init, jax.random.key(0), jnp.zeros(video.shape))["params"]
    named = tensors(network)
    chainer = {name.replace(".weight", "/W").replace(".bias", "/b"): tensor for name, tensor in named.items()}
    params = from_public(c3d.public_names(chainer), template)
    found = jax.jit(flax.apply)({"params": params}, video)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_preprocess():
    rng = np.random.default_rng(1)
    video = rng.integers(0, 256, (1, 16, 64, 80, 3)).astype(np.uint8)
    cube = rng.uniform(80, 120, (1, 3, 16, 128, 171)).astype(np.float32)
    mean = c3d.read_mean(cube)
    frames = torch.from_numpy(video[0, ..., ::-1].astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    resized = F.interpolate(128 * frames, (112, 112), mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    expected = resized.numpy() + 128 - cube[0, :, :, 8:120, 8:120].transpose(1, 2, 3, 0)
    np.testing.assert_allclose(
        c3d.preprocess(video, mean)[0], expected, atol=1e-2
    )  # of numbers up to 256, positions in float32
    assert (c3d.read_mean(np.array([1.0, 2.0, 3.0]))[3, 4, 5] == [1, 2, 3]).all()
    with pytest.raises(ValueError, match=r"mean has shape \(4,\)"):
        c3d.read_mean(np.zeros(4))
