import json
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from videogen_jax.runtime.files import save_json
from videogen_jax.weights import folder as folders

WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG = {"_class_name": "Tiny", "block_out_channels": (4, 8), "act": "silu"}


@pytest.fixture
def params():
    rng = np.random.default_rng(0)
    return {
        "conv_in": {"kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 4)), jnp.float32), "bias": jnp.zeros(4)},
        "blocks_0": {"norm": {"scale": jnp.ones(4)}, "proj": {"kernel": jnp.asarray(rng.normal(size=(4, 5)))}},
    }


@pytest.fixture
def template(params):
    return jax.eval_shape(lambda: params)


def test_round_trip(tmp_path, params, template):
    folders.save_part(tmp_path / "unet", CONFIG, params)
    assert sorted(entry.name for entry in (tmp_path / "unet").iterdir()) == ["config.json", WEIGHTS]
    (tmp_path / "plain").touch()
    modes = {path.stat().st_mode for path in (tmp_path / "plain", *(tmp_path / "unet").iterdir())}
    assert len(modes) == 1  # the usual permissions, not those of safetensors
    assert folders.load_config(tmp_path / "unet") == {**CONFIG, "block_out_channels": [4, 8]}
    text = (tmp_path / "unet" / "config.json").read_text()
    assert text.startswith('{\n  "_class_name": "Tiny",\n  "act"')

    tensors = folders.load_tensors(tmp_path / "unet")
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} == {
        "conv_in.weight": ((4, 2, 3, 3), np.float16),
        "conv_in.bias": ((4,), np.float16),
        "blocks.0.norm.weight": ((4,), np.float16),
        "blocks.0.proj.weight": ((5, 4), np.float16),
    }
    with safetensors.safe_open(tmp_path / "unet" / WEIGHTS, "numpy") as file:
        assert file.metadata() == {"format": "pt"}

    read = folders.load_part(tmp_path / "unet", template)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), read, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(read)} == {np.dtype(np.float32)}
    half = folders.load_part(tmp_path / "unet", template, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {np.dtype(ml_dtypes.bfloat16)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_dtypes(tmp_path, params, template, dtype):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    folders.save_part(tmp_path, CONFIG, params, dtype=dtype)
    assert {str(tensor.dtype) for tensor in folders.load_tensors(tmp_path).values()} == {dtype}
    jax.tree.map(np.testing.assert_array_equal, folders.load_part(tmp_path, template, dtype=dtype), params)


def test_torch_reads_our_files(tmp_path, params):
    torch = pytest.importorskip("torch")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    folders.save_part(tmp_path, CONFIG, params, dtype="float32")
    conv = torch.nn.Conv2d(2, 4, 3)
    tensors = safetensors_torch.load_file(tmp_path / WEIGHTS)
    conv.load_state_dict({"weight": tensors["conv_in.weight"], "bias": tensors["conv_in.bias"]})
    x = np.random.default_rng(1).normal(size=(1, 6, 7, 2)).astype(np.float32)
    ours = jax.lax.conv_general_dilated(
        x, params["conv_in"]["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    theirs = conv(torch.from_numpy(x.transpose(0, 3, 1, 2))).detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_values_too_large_for_half_precision_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"norm\.weight has values too large for float16"):
        folders.save_part(tmp_path / "part", CONFIG, {"norm": {"scale": np.float32([1, 1e6])}})
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float8"}, "dtype is 'float8', but must be one of float16, bfloat16, float32"),
        ({"weights_name": "weights.bin"}, "weights_name is 'weights.bin', but must be one of diffusion_pytorch_model"),
    ],
)
def test_bad_arguments(tmp_path, params, arguments, message):
    with pytest.raises(ValueError, match=message):
        folders.save_part(tmp_path, CONFIG, params, **arguments)


def test_a_failed_write_leaves_the_old_files(tmp_path, params, template, monkeypatch):
    folders.save_part(tmp_path, CONFIG, params)
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}

    def half_a_file(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.numpy, "save_file", half_a_file)
    with pytest.raises(OSError, match="disk full"):
        folders.save_part(tmp_path, {"_class_name": "Other"}, params)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", [name for name in folders.WEIGHTS_NAMES if not name.endswith(".msgpack")])
def test_every_public_file_name_is_found(tmp_path, name):
    tensors = {"a.weight": np.float32([1, 2]), "b.weight": np.float32([3])}
    if name.endswith(".json"):
        shards = {"a.weight": "x-00001-of-00002.safetensors", "b.weight": "x-00002-of-00002.safetensors"}
        for tensor, shard in shards.items():
            safetensors.numpy.save_file({tensor: tensors[tensor]}, tmp_path / shard)
        (tmp_path / name).write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    else:
        safetensors.numpy.save_file(tensors, tmp_path / name)
    read = folders.load_tensors(tmp_path)
    assert set(read) == set(tensors)
    assert all(np.array_equal(read[key], tensors[key]) for key in tensors)


def test_full_weights_come_before_half_precision_ones(tmp_path):
    safetensors.numpy.save_file({"a": np.float16([1])}, tmp_path / "model.fp16.safetensors")
    safetensors.numpy.save_file({"a": np.float32([2])}, tmp_path / "model.safetensors")
    assert folders.load_tensors(tmp_path)["a"] == 2


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "v1-5-pruned.ckpt"])
def test_a_pickle_is_refused_with_a_remedy(tmp_path, name):
    (tmp_path / name).write_bytes(b"pickle")
    with pytest.raises(ValueError, match=rf"only pickled weights \({re.escape(name)}\).*safe_serialization=True"):
        folders.load_tensors(tmp_path)


def test_missing_empty_and_damaged(tmp_path, params, template):
    with pytest.raises(ValueError, match="nowhere does not exist"):
        folders.load_tensors(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=f"has no weights: neither {WEIGHTS} nor model.safetensors"):
        folders.load_tensors(tmp_path)
    with pytest.raises(ValueError, match=r"it has no config\.json"):
        folders.load_config(tmp_path)
    folders.save_part(tmp_path, CONFIG, params)
    weights = tmp_path / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match=f"{WEIGHTS} cannot be read as safetensors"):
        folders.load_part(tmp_path, template)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        folders.load_config(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"config\.json must contain a JSON object"):
        folders.load_config(tmp_path)
    with pytest.raises(ValueError, match=r"config\.json is a file, but must be a model folder"):
        folders.load_config(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "absent.safetensors"}, "absent.safetensors is missing, but model.safetensors.index.json names it"),
        ({"a": "../x.safetensors"}, "names the file '../x.safetensors', which is not in the same folder"),
        ({"b": "x.safetensors"}, "names b and 0 more that its files do not contain"),
        (["a"], "has no weight_map"),
    ],
)
def test_bad_shards(tmp_path, weight_map, message):
    safetensors.numpy.save_file({"a": np.float32([1])}, tmp_path / "x.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match=re.escape(message)):
        folders.load_tensors(tmp_path)


def test_weights_of_another_network_name_the_folder(tmp_path, params, template):
    folders.save_part(tmp_path / "unet", CONFIG, params)
    template["conv_in"]["kernel"] = jax.ShapeDtypeStruct((3, 3, 9, 4), jnp.float32)
    with pytest.raises(ValueError, match=r"unet: .*conv_in\.weight is \(4, 2, 3, 3\), not \(4, 9, 3, 3\)"):
        folders.load_part(tmp_path / "unet", template)


def test_model_index(tmp_path):
    index = {"_class_name": "VideoGenPipeline", "unet": ["videogen_jax", "UNet"], "safety_checker": [None, None]}
    save_json(tmp_path / "model" / folders.INDEX_NAME, index)
    assert folders.read_model_index(tmp_path / "model") == index
    with pytest.raises(ValueError, match=r"is not a model folder: it has no model_index\.json$"):
        folders.read_model_index(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has no model_index\.json; with its config\.json it looks like one part"):
        folders.read_model_index(tmp_path)
    with pytest.raises(ValueError, match=r"the folder .*nowhere does not exist"):
        folders.read_model_index(tmp_path / "nowhere")
