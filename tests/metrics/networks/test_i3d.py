"""I3D against a PyTorch module with the layer names of the public port, on random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.metrics.networks.random_weights import randomize, tensors
from videogen_jax.metrics.networks import i3d
from videogen_jax.weights.naming import from_public

WIDTHS = [
    ("Mixed_3b", 192, (64, 96, 128, 16, 32, 32)),
    ("Mixed_3c", 256, (128, 128, 192, 32, 96, 64)),
    ("Mixed_4b", 480, (192, 96, 208, 16, 48, 64)),
    ("Mixed_4c", 512, (160, 112, 224, 24, 64, 64)),
    ("Mixed_4d", 512, (128, 128, 256, 24, 64, 64)),
    ("Mixed_4e", 512, (112, 144, 288, 32, 64, 64)),
    ("Mixed_4f", 528, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5b", 832, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5c", 832, (384, 192, 384, 48, 128, 128)),
]


def pad_same(x, kernel, stride):
    """TensorFlow's: the odd zero goes to the end."""
    pads = []
    for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def pool_same(x, kernel, stride):
    return F.max_pool3d(pad_same(x, kernel, stride), kernel, stride)


class TorchUnit(torch.nn.Module):
    def __init__(self, inside, outside, kernel=1, stride=1, norm=True, eps=1e-3):
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        self.conv3d = torch.nn.Conv3d(inside, outside, kernel, stride, bias=not norm)
        if norm:
            self.bn = torch.nn.BatchNorm3d(outside, eps=eps)

    def forward(self, x):
        x = self.conv3d(pad_same(x, self.kernel, self.stride))
        return F.relu(self.bn(x)) if hasattr(self, "bn") else x


class TorchMixed(torch.nn.Module):
    def __init__(self, inside, widths, eps):
        super().__init__()
        self.b0 = TorchUnit(inside, widths[0], eps=eps)
        self.b1a, self.b1b = TorchUnit(inside, widths[1], eps=eps), TorchUnit(widths[1], widths[2], 3, eps=eps)
        self.b2a, self.b2b = TorchUnit(inside, widths[3], eps=eps), TorchUnit(widths[3], widths[4], 3, eps=eps)
        self.b3b = TorchUnit(inside, widths[5], eps=eps)

    def forward(self, x):
        pooled = pool_same(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


class TorchI3D(torch.nn.Module):
    def __init__(self, eps):
        super().__init__()
        self.Conv3d_1a_7x7 = TorchUnit(3, 64, 7, 2, eps=eps)
        self.Conv3d_2b_1x1 = TorchUnit(64, 64, eps=eps)
        self.Conv3d_2c_3x3 = TorchUnit(64, 192, 3, eps=eps)
        for name, inside, widths in WIDTHS:
            self.add_module(name, TorchMixed(inside, widths, eps))
        self.logits = TorchUnit(1024, 400, norm=False)

    def forward(self, x):
        x = pool_same(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = pool_same(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        x = self.Mixed_3c(self.Mixed_3b(x))
        x = pool_same(x, (3, 3, 3), (2, 2, 2))
        for name in "bcdef":
            x = getattr(self, f"Mixed_4{name}")(x)
        x = pool_same(x, (2, 2, 2), (2, 2, 2))
        x = self.Mixed_5c(self.Mixed_5b(x))
        x = F.avg_pool3d(x, (2, *x.shape[3:]), 1)
        return self.logits(x).mean((2, 3, 4)), x.mean((2, 3, 4))


@pytest.fixture(scope="module")
def template():
    return jax.eval_shape(i3d.I3D().init, jax.random.key(0), jnp.zeros((1, 9, 32, 32, 3)))["params"]


def other_layout(name):
    """The name of a tensor in the layout of hassony2's port and of files made from it."""
    name = name.replace(".bn.", ".batch3d.").replace("logits.", "conv3d_0c_1x1.")
    name = name.replace(".b0.", ".branch_0.").replace(".b3b.", ".branch_3.1.")
    for branch in "12":
        for place, letter in enumerate("ab"):
            name = name.replace(f".b{branch}{letter}.", f".branch_{branch}.{place}.")
    return name[0].lower() + name[1:]


@pytest.mark.parametrize("protocol", ["tensorflow", "videogpt"])
def test_parity(template, protocol):
    eps = i3d.EPSILONS[protocol]
    network = randomize(TorchI3D(eps))
    video = np.random.default_rng(0).uniform(-1, 1, (1, 11, 33, 48, 3)).astype(np.float32)
    with torch.no_grad():
        expected = [x.numpy() for x in network(torch.from_numpy(video.transpose(0, 4, 1, 2, 3)))]
    params = from_public(i3d.public_names(tensors(network)), template)
    found = jax.jit(i3d.I3D(eps=eps).apply)({"params": params}, video)
    for a, b in zip(found, expected, strict=True):
        assert np.abs(a - b).max() < 1e-4 * np.abs(b).max()


def test_the_other_layout_reads_the_same(template):
    named = tensors(randomize(TorchI3D(1e-3)))
    plain = from_public(i3d.public_names(named), template)
    renamed = {other_layout(name): tensor for name, tensor in named.items()}
    assert "mixed_4b.branch_1.0.batch3d.running_var" in renamed
    other = from_public(i3d.public_names(renamed), template)
    jax.tree.map(np.testing.assert_array_equal, plain, other)
    without_scales = {name: t for name, t in named.items() if not name.endswith("bn.weight")}
    filled = from_public(i3d.public_names(without_scales), template)
    assert (filled["Mixed_5c"]["b0"]["bn"]["scale"] == 1).all()


def test_preprocess_is_torchs_bilinear():
    video = np.random.default_rng(1).integers(0, 256, (1, 2, 20, 300, 3)).astype(np.uint8)
    frames = torch.from_numpy(video[0].astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    expected = F.interpolate(frames, (224, 224), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    np.testing.assert_allclose(i3d.preprocess(video)[0], expected, atol=2e-5)
