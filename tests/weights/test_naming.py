import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from videogen_jax.weights import naming


class Block(nn.Module):
    """One of each layer that the public checkpoints have, under names that need translating."""

    @nn.compact
    def __call__(self, tokens, series, image, volume):
        mix = self.param("mix_factor", nn.initializers.constant(0.25), (1,))
        h = nn.Embed(11, 6, name="token_embedding")(tokens)
        h = nn.LayerNorm(epsilon=1e-5, name="norms_1")(h)
        h = nn.Dense(5, name="to_out_0")(h)
        image = nn.GroupNorm(2, epsilon=1e-5, name="conv_norm_out")(nn.Conv(4, (3, 3), padding=1, name="conv1")(image))
        series = nn.Conv(3, (3,), padding=1, name="conv_1d")(series)
        volume = nn.Conv(4, (3, 1, 3), padding=((1, 1), (0, 0), (1, 1)), use_bias=False, name="conv_3d")(volume)
        return nn.Dense(2, name="linear_1")(h) * mix, series, image, volume


class Network(nn.Module):
    @nn.compact
    def __call__(self, *inputs):
        return Block(name="down_blocks_0")(*inputs), Block(name="down_blocks_10")(*inputs)


def torch_network(torch):
    class TorchBlock(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix_factor = torch.nn.Parameter(torch.rand(1))
            self.token_embedding = torch.nn.Embedding(11, 6)
            self.norms = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.LayerNorm(6)])
            self.to_out = torch.nn.ModuleList([torch.nn.Linear(6, 5)])
            self.conv1 = torch.nn.Conv2d(3, 4, 3, padding=1)
            self.conv_norm_out = torch.nn.GroupNorm(2, 4)
            self.conv_1d = torch.nn.Conv1d(2, 3, 3, padding=1)
            self.conv_3d = torch.nn.Conv3d(2, 4, (3, 1, 3), padding=(1, 0, 1), bias=False)
            self.linear_1 = torch.nn.Linear(5, 2)
            for parameter in self.parameters():
                torch.nn.init.normal_(parameter, std=0.5)

        def forward(self, tokens, series, image, volume):
            h = self.to_out[0](self.norms[1](self.token_embedding(tokens)))
            image = self.conv_norm_out(self.conv1(image))
            return self.linear_1(h) * self.mix_factor, self.conv_1d(series), image, self.conv_3d(volume)

    class TorchNetwork(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.down_blocks = torch.nn.ModuleList([TorchBlock() for _ in range(11)])

        def forward(self, *inputs):
            return self.down_blocks[0](*inputs), self.down_blocks[10](*inputs)

    return TorchNetwork()


def arrays(module):
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


INPUTS = (
    np.arange(8).reshape(2, 4) % 11,
    np.linspace(-1, 1, 2 * 7 * 2, dtype=np.float32).reshape(2, 7, 2),
    np.sin(np.arange(2 * 5 * 6 * 3, dtype=np.float32)).reshape(2, 5, 6, 3),
    np.cos(np.arange(2 * 3 * 4 * 5 * 2, dtype=np.float32)).reshape(2, 3, 4, 5, 2),
)


@pytest.fixture(scope="module")
def template():
    return jax.eval_shape(Network().init, jax.random.key(0), *INPUTS)["params"]


@pytest.fixture
def tensors(template):
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), template)
    return naming.to_public(params)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("down_blocks_0/resnets_1/conv1/kernel", "down_blocks.0.resnets.1.conv1.weight"),
        ("down_blocks_0/resnets_1/norm2/scale", "down_blocks.0.resnets.1.norm2.weight"),
        ("mid_block/attentions_0/to_out_0/bias", "mid_block.attentions.0.to_out.0.bias"),
        ("transformer_blocks_12/ff/net_0/proj/kernel", "transformer_blocks.12.ff.net.0.proj.weight"),
        ("transformer_blocks_12/ff/net_2/kernel", "transformer_blocks.12.ff.net.2.weight"),
        ("time_embedding/linear_1/kernel", "time_embedding.linear_1.weight"),
        (
            "text_model/embeddings/token_embedding/embedding",
            "text_model.embeddings.token_embedding.weight",
        ),
        (
            "text_model/encoder/layers_0/self_attn/q_proj/kernel",
            "text_model.encoder.layers.0.self_attn.q_proj.weight",
        ),
        ("decoder/mid_block/resnets_0/time_mixer/mix_factor", "decoder.mid_block.resnets.0.time_mixer.mix_factor"),
        ("logit_scale", "logit_scale"),
    ],
)
def test_public_name(path, name):
    assert naming.public_name(tuple(path.split("/"))) == name


def test_a_linen_network_computes_what_the_torch_network_does():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch_network(torch)
    stored = {
        name: tensor
        for name, tensor in arrays(module).items()
        if name.startswith(("down_blocks.0.", "down_blocks.10."))
    }
    template = jax.eval_shape(Network().init, jax.random.key(0), *INPUTS)["params"]
    params = naming.from_public(stored, template)
    outputs = Network().apply({"params": params}, *INPUTS)
    with torch.no_grad():
        expected = module(torch.from_numpy(INPUTS[0]), *(torch.from_numpy(np.moveaxis(x, -1, 1)) for x in INPUTS[1:]))
    for ours, theirs in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
        for x, y in zip(ours[1:], theirs[1:], strict=True):
            np.testing.assert_allclose(np.moveaxis(np.asarray(x), -1, 1), y, atol=1e-5)

    back = naming.to_public(params)
    assert set(back) == set(stored)
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, stored[name])
        assert tensor.flags.c_contiguous


def test_round_trip_keeps_structure_and_values(template, tensors):
    params = naming.from_public(tensors, template)
    assert jax.tree.structure(params) == jax.tree.structure(template)
    again = naming.to_public(params)
    assert all(np.array_equal(again[name], tensors[name]) for name in tensors)


def test_casts_to_the_template(template, tensors):
    half = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), template)
    params = naming.from_public(tensors, half)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(ml_dtypes.bfloat16)}
    kernel = params["down_blocks_0"]["to_out_0"]["kernel"].astype(np.float32)
    np.testing.assert_allclose(kernel, tensors["down_blocks.0.to_out.0.weight"].T, rtol=1e-2)


def test_scalars_stay_scalars():
    tensors = naming.to_public({"logit_scale": jnp.float32(4.5)})
    assert tensors["logit_scale"].shape == ()
    params = naming.from_public(tensors, {"logit_scale": jax.ShapeDtypeStruct((), jnp.float32)})
    assert params["logit_scale"].shape == ()
    assert params["logit_scale"] == 4.5


def test_one_error_names_all_that_is_wrong(template, tensors):
    tensors["down_blocks.0.conv1.weight"] = np.zeros((4, 3, 5, 5), np.float32)
    del tensors["down_blocks.10.linear_1.bias"]
    tensors["extra.weight"] = np.zeros((7, 2), np.float32)
    with pytest.raises(ValueError) as caught:
        naming.from_public(tensors, template)
    message = str(caught.value)
    assert "1 missing (down_blocks.10.linear_1.bias (2,))" in message
    assert "1 surplus (extra.weight (7, 2))" in message
    assert "1 of another shape (down_blocks.0.conv1.weight is (4, 3, 5, 5), not (4, 3, 3, 3))" in message


def test_a_long_list_is_shortened_and_counted(template):
    leaves = len(jax.tree.leaves(template))
    with pytest.raises(ValueError, match=rf"{leaves} missing \(.*, \.\.\.\)") as caught:
        naming.from_public({}, template)
    assert str(caught.value).count("down_blocks.") == 5


def test_a_transposed_kernel_is_refused():
    template = {"proj": {"kernel": jax.ShapeDtypeStruct((3, 2), jnp.float32)}}
    with pytest.raises(ValueError, match=re.escape("proj.weight is (3, 2), not (2, 3)")):
        naming.from_public({"proj.weight": np.zeros((3, 2), np.float32)}, template)


def test_older_names_of_attention_layers_and_buffers():
    shapes = {
        name: {"kernel": jax.ShapeDtypeStruct((4, 4), jnp.float32)} for name in ("to_q", "to_k", "to_v", "to_out_0")
    }
    old = {
        f"mid_block.attentions.0.{name}.weight": np.full((4, 4), value, np.float32)
        for value, name in enumerate(("query", "key", "value", "proj_attn"))
    }
    old["text_model.embeddings.position_ids"] = np.arange(77)
    params = naming.from_public(old, {"mid_block": {"attentions_0": shapes}})
    read = params["mid_block"]["attentions_0"]
    assert [read[name]["kernel"][0, 0] for name in shapes] == [0, 1, 2, 3]


@pytest.mark.parametrize(("stored", "asked"), [("", "text_model."), ("text_model.", "")])
def test_text_encoder_with_and_without_prefix(stored, asked):
    node = {"final_layer_norm": {"scale": jax.ShapeDtypeStruct((3,), jnp.float32)}}
    template = {"text_model": node} if asked else node
    params = naming.from_public({f"{stored}final_layer_norm.weight": np.arange(3.0)}, template)
    np.testing.assert_array_equal(jax.tree.leaves(params)[0], [0, 1, 2])


def test_two_parameters_of_the_same_name_are_refused():
    params = {"norm": {"scale": np.ones(2), "kernel": np.ones((2, 2))}}
    with pytest.raises(ValueError, match=re.escape("'norm.weight', the second is norm/kernel")):
        naming.to_public(params)


def test_a_kernel_of_no_known_layer_is_refused():
    with pytest.raises(ValueError, match="attention/kernel has 1 axes"):
        naming.to_public({"attention": {"kernel": np.ones(3)}})


def linen_template(torch, module):
    """Return the template of the analogous linen network: layer types determine the leaf names."""
    template = {}
    for prefix, layer in module.named_modules():
        for leaf, tensor in layer.named_parameters(recurse=False):
            shape = tuple(tensor.shape)
            if leaf == "weight" and isinstance(layer, torch.nn.Embedding):
                leaf = "embedding"
            elif leaf == "weight" and len(shape) == 1:
                leaf = "scale"
            elif leaf == "weight":
                leaf, shape = "kernel", (*shape[2:], shape[1], shape[0])
            node = template
            for part in re.sub(r"\.(\d+)(?=\.|$)", r"_\1", prefix).split("."):
                node = node.setdefault(part, {})
            node[leaf] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return template


def tiny_networks(torch):
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    blocks = {"block_out_channels": (8, 16), "norm_num_groups": 4}
    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    yield diffusers.UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        **blocks,
    )
    yield diffusers.AutoencoderKL(down_block_types=down, up_block_types=up, **blocks)
    yield diffusers.AutoencoderKLTemporalDecoder(down_block_types=down, block_out_channels=(32, 32), layers_per_block=1)
    yield transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=20,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def test_every_name_of_the_public_networks_is_covered():
    torch = pytest.importorskip("torch")
    for module in tiny_networks(torch):
        tensors = arrays(module)
        params = naming.from_public(tensors, linen_template(torch, module))
        back = naming.to_public(params)
        trained = {name for name, _ in module.named_parameters()}
        assert set(back) == trained, type(module).__name__
        assert all(np.array_equal(back[name], tensors[name]) for name in trained), type(module).__name__
