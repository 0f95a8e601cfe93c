"""Files written by PyTorch are read without it; files that would execute code are refused."""

import os
import pickle

import numpy as np
import pytest
import torch

from videogen_jax.weights.torch_files import load_torch_file


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)])
        self.logits = torch.nn.Linear(3, 4)
        self.scale = 2

    def forward(self, x, resize: bool = False):
        for block in self.blocks:
            x = block(x)
        return self.logits(x.mean((2, 3))) * self.scale


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().eval()


def _same(found, state):
    assert set(found) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name], tensor.float().numpy() if tensor.is_floating_point() else tensor)


@pytest.mark.parametrize("zipped", [True, False])
def test_state_dict(network, tmp_path, zipped):
    torch.save(network.state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    _same(load_torch_file(tmp_path / "w.pth"), network.state_dict())
    checkpoint = {"epoch": 3, "model": network.state_dict()}
    torch.save(checkpoint, tmp_path / "c.pth", _use_new_zipfile_serialization=zipped)
    assert "model.logits.bias" in load_torch_file(tmp_path / "c.pth")


def test_torchscript(network, tmp_path):
    torch.jit.script(network).save(str(tmp_path / "scripted.pt"))
    _same(load_torch_file(tmp_path / "scripted.pt"), network.state_dict())


def test_views_and_half_precision(tmp_path):
    whole = torch.arange(24.0).reshape(2, 3, 4)
    state = {"view": whole[1:].transpose(0, 2), "half": whole.half(), "bf16": whole.bfloat16(), "none": whole[:0]}
    torch.save(state, tmp_path / "w.pt")
    found = load_torch_file(tmp_path / "w.pt")
    assert found["half"].dtype == np.float16
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name].astype(np.float32), tensor.float())


class Harmful:
    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_not_run(tmp_path, zipped):
    harmful = Harmful()
    harmful.path = str(tmp_path / "created")
    torch.save({"w": harmful}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"it names .*mkdir, which a file of tensors does not need"):
        load_torch_file(tmp_path / "w.pt")
    assert not (tmp_path / "created").exists()


def test_whole_models_and_damaged_files(network, tmp_path):
    torch.save(network, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"torch\.save\(model\.state_dict\(\), path\)"):
        load_torch_file(tmp_path / "model.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:300])
    with pytest.raises(ValueError, match="cannot be read as tensors"):
        load_torch_file(tmp_path / "cut.pt")
    (tmp_path / "other.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="cannot be read as tensors"):
        load_torch_file(tmp_path / "other.pt")
