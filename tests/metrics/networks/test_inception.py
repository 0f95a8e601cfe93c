"""Inception-v3 of the FID against a PyTorch module with pytorch-fid's names, on random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from tests.metrics.networks.random_weights import randomize, tensors
from videogen_jax.metrics.networks import inception
from videogen_jax.weights.naming import from_public


class Conv(torch.nn.Module):
    def __init__(self, inside, outside, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = torch.nn.Conv2d(inside, outside, kernel, stride, padding, bias=False)
        self.bn = torch.nn.BatchNorm2d(outside, eps=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Block(torch.nn.Module):
    """A block from a table: name of the convolution -> its arguments; `wiring` puts them together."""

    def __init__(self, convolutions, wiring):
        super().__init__()
        for name, arguments in convolutions.items():
            self.add_module(name, Conv(*arguments))
        self.wiring = wiring

    def forward(self, x):
        return torch.cat(self.wiring(self, x), 1)


def average(x):
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def block_a(inside, pool):
    convolutions = {
        "branch1x1": (inside, 64, 1),
        "branch5x5_1": (inside, 48, 1),
        "branch5x5_2": (48, 64, 5, 1, 2),
        "branch3x3dbl_1": (inside, 64, 1),
        "branch3x3dbl_2": (64, 96, 3, 1, 1),
        "branch3x3dbl_3": (96, 96, 3, 1, 1),
        "branch_pool": (inside, pool, 1),
    }
    return Block(
        convolutions,
        lambda m, x: [
            m.branch1x1(x),
            m.branch5x5_2(m.branch5x5_1(x)),
            m.branch3x3dbl_3(m.branch3x3dbl_2(m.branch3x3dbl_1(x))),
            m.branch_pool(average(x)),
        ],
    )


def block_b(inside):
    convolutions = {
        "branch3x3": (inside, 384, 3, 2),
        "branch3x3dbl_1": (inside, 64, 1),
        "branch3x3dbl_2": (64, 96, 3, 1, 1),
        "branch3x3dbl_3": (96, 96, 3, 2),
    }
    return Block(
        convolutions,
        lambda m, x: [
            m.branch3x3(x),
            m.branch3x3dbl_3(m.branch3x3dbl_2(m.branch3x3dbl_1(x))),
            F.max_pool2d(x, 3, 2),
        ],
    )


def block_c(width):
    row, column = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    convolutions = {
        "branch1x1": (768, 192, 1),
        "branch7x7_1": (768, width, 1),
        "branch7x7_2": (width, width, *row),
        "branch7x7_3": (width, 192, *column),
        "branch7x7dbl_1": (768, width, 1),
        "branch7x7dbl_2": (width, width, *column),
        "branch7x7dbl_3": (width, width, *row),
        "branch7x7dbl_4": (width, width, *column),
        "branch7x7dbl_5": (width, 192, *row),
        "branch_pool": (768, 192, 1),
    }

    def wiring(m, x):
        double = m.branch7x7dbl_1(x)
        for layer in (m.branch7x7dbl_2, m.branch7x7dbl_3, m.branch7x7dbl_4, m.branch7x7dbl_5):
            double = layer(double)
        return [
            m.branch1x1(x),
            m.branch7x7_3(m.branch7x7_2(m.branch7x7_1(x))),
            double,
            m.branch_pool(average(x)),
        ]

    return Block(convolutions, wiring)


def block_d():
    convolutions = {
        "branch3x3_1": (768, 192, 1),
        "branch3x3_2": (192, 320, 3, 2),
        "branch7x7x3_1": (768, 192, 1),
        "branch7x7x3_2": (192, 192, (1, 7), 1, (0, 3)),
        "branch7x7x3_3": (192, 192, (7, 1), 1, (3, 0)),
        "branch7x7x3_4": (192, 192, 3, 2),
    }
    return Block(
        convolutions,
        lambda m, x: [
            m.branch3x3_2(m.branch3x3_1(x)),
            m.branch7x7x3_4(m.branch7x7x3_3(m.branch7x7x3_2(m.branch7x7x3_1(x)))),
            F.max_pool2d(x, 3, 2),
        ],
    )


def block_e(inside, pool):
    row, column = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))
    convolutions = {
        "branch1x1": (inside, 320, 1),
        "branch3x3_1": (inside, 384, 1),
        "branch3x3_2a": (384, 384, *row),
        "branch3x3_2b": (384, 384, *column),
        "branch3x3dbl_1": (inside, 448, 1),
        "branch3x3dbl_2": (448, 384, 3, 1, 1),
        "branch3x3dbl_3a": (384, 384, *row),
        "branch3x3dbl_3b": (384, 384, *column),
        "branch_pool": (inside, 192, 1),
    }

    def wiring(m, x):
        three, double = m.branch3x3_1(x), m.branch3x3dbl_2(m.branch3x3dbl_1(x))
        return [
            m.branch1x1(x),
            m.branch3x3_2a(three),
            m.branch3x3_2b(three),
            m.branch3x3dbl_3a(double),
            m.branch3x3dbl_3b(double),
            m.branch_pool(pool(x)),
        ]

    return Block(convolutions, wiring)


class TorchInception(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Conv(3, 32, 3, 2), Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, 1, 1)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Conv(64, 80, 1), Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = block_a(192, 32), block_a(256, 64), block_a(288, 64)
        self.Mixed_6a = block_b(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = map(block_c, (128, 160, 160, 192))
        self.Mixed_7a = block_d()
        self.Mixed_7b = block_e(1280, average)
        self.Mixed_7c = block_e(2048, lambda x: F.max_pool2d(x, 3, 1, 1))
        self.fc = torch.nn.Linear(2048, 1008)

    def forward(self, x):
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = getattr(self, f"Mixed_{name}")(x)
        features = x.mean((2, 3))
        return features, self.fc(features)


def test_parity():
    network = randomize(TorchInception())
    images = np.random.default_rng(0).uniform(-1, 1, (2, 111, 139, 3)).astype(np.float32)
    with torch.no_grad():
        expected = [x.numpy() for x in network(torch.from_numpy(images.transpose(0, 3, 1, 2)))]
    flax = inception.InceptionV3()
    template = jax.eval_shape(flax.init, jax.random.key(0), jnp.zeros(images.shape))["params"]
    named = {**tensors(network), "AuxLogits.fc.bias": np.zeros(3)}
    params = from_public(inception.public_names(named), template)
    found = jax.jit(flax.apply)({"params": params}, images)
    for a, b in zip(found, expected, strict=True):
        assert np.abs(a - b).max() < 1e-4 * np.abs(b).max()


def test_preprocess_is_torchs_bilinear():
    images = np.random.default_rng(1).integers(0, 256, (1, 400, 128, 3)).astype(np.uint8)
    unit = torch.from_numpy(images / np.float32(255)).permute(0, 3, 1, 2)
    expected = 2 * F.interpolate(unit, (299, 299), mode="bilinear", align_corners=False) - 1
    np.testing.assert_allclose(inception.preprocess(images), expected.permute(0, 2, 3, 1), atol=3e-5)
