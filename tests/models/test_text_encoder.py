import jax
import numpy as np
import pytest

from tests.tiny_model import random_params
from videogen_jax.models.text_encoder import CLIPTextEncoder
from videogen_jax.weights.naming import from_public

FIELDS = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_layers": 3, "num_heads": 4}
TOKENS = np.array([[48, 5, 9, 30, 49, 49, 49], [48, 7, 7, 2, 11, 12, 49]], np.int32)


def encoder(**fields):
    return CLIPTextEncoder(**{**FIELDS, "eos_token_id": 49, **fields})


@pytest.mark.parametrize(
    ("hidden_act", "eos_token_id", "projection_dim"), [("quick_gelu", 2, None), ("gelu", 49, 24), ("quick_gelu", 9, 8)]
)
def test_parity_with_transformers(hidden_act, eos_token_id, projection_dim):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=16,
        hidden_act=hidden_act,
        eos_token_id=eos_token_id,
        projection_dim=projection_dim or 16,
    )
    kind = transformers.CLIPTextModelWithProjection if projection_dim else transformers.CLIPTextModel
    theirs = kind(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        expected = theirs(torch.from_numpy(TOKENS).long(), output_hidden_states=True)

    ours = encoder(hidden_act=hidden_act, eos_token_id=eos_token_id, projection_dim=projection_dim, max_positions=16)
    template = jax.eval_shape(ours.init, jax.random.key(0), TOKENS)["params"]
    params = from_public({name: x.numpy() for name, x in theirs.state_dict().items()}, template)
    features = jax.jit(ours.apply)({"params": params}, TOKENS)

    def close(actual, wanted):
        np.testing.assert_allclose(actual, wanted.numpy(), rtol=1e-5, atol=1e-5)

    close(features.last_hidden_state, expected.last_hidden_state)
    assert len(features.hidden_states) == 4
    for actual, wanted in zip(features.hidden_states[:-1], expected.hidden_states, strict=False):
        close(actual, wanted)
    if projection_dim:
        close(features.projected, expected.text_embeds)
    else:
        assert features.projected is None
        close(features.pooled, expected.pooler_output)


def test_attention_is_causal_and_the_first_end_token_is_pooled():
    model = encoder()
    params = random_params(jax.eval_shape(model.init, jax.random.key(0), TOKENS), seed=0)
    apply = jax.jit(model.apply)
    features = apply(params, TOKENS)
    changed = apply(params, np.where(np.arange(7) == 5, 3, TOKENS))
    np.testing.assert_array_equal(features.last_hidden_state[:, :5], changed.last_hidden_state[:, :5])
    change = np.abs(features.last_hidden_state - changed.last_hidden_state).max(-1)
    assert change[:, 5:].min() > 1e-6
    np.testing.assert_array_equal(features.pooled[0], features.last_hidden_state[0, 4])
    np.testing.assert_array_equal(features.pooled[1], features.last_hidden_state[1, 6])


def test_errors_name_the_field():
    def init(tokens=TOKENS, **fields):
        return jax.eval_shape(encoder(**fields).init, jax.random.key(0), tokens)

    with pytest.raises(ValueError, match="hidden_act must be one of quick_gelu, gelu"):
        init(hidden_act="relu")
    with pytest.raises(ValueError, match="num_heads 5"):
        init(num_heads=5)
    with pytest.raises(ValueError, match=r"78 tokens .* max_positions 77"):
        init(tokens=np.zeros((1, 78), np.int32))
