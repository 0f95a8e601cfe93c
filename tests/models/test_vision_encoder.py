import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.models.vision_encoder import CLIPVisionEncoder
from videogen_jax.weights.naming import from_public

FIELDS = {"hidden_size": 32, "intermediate_size": 48, "num_layers": 3, "num_heads": 4, "patch_size": 7}
IMAGES = (
    np.random.default_rng(0).normal(size=(2, 30, 30, 3)).astype(np.float32)
)  # 4 x 4 patches, and 2 pixels left over


def encoder(**fields):
    return CLIPVisionEncoder(**{**FIELDS, "projection_dim": 24, "image_size": 30, **fields})


@pytest.mark.parametrize("hidden_act", ["gelu", "quick_gelu"])
def test_parity_with_transformers(hidden_act):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        patch_size=7,
        image_size=30,
        projection_dim=24,
        hidden_act=hidden_act,
    )
    theirs = transformers.CLIPVisionModelWithProjection(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        expected = theirs(torch.from_numpy(IMAGES).movedim(-1, 1)).image_embeds.numpy()

    ours = encoder(hidden_act=hidden_act)
    template = jax.eval_shape(ours.init, jax.random.key(0), IMAGES)["params"]
    params = from_public({name: x.numpy() for name, x in theirs.state_dict().items()}, template)
    found = jax.jit(ours.apply)({"params": params}, IMAGES)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    half = jax.jit(encoder(hidden_act=hidden_act, dtype=jnp.bfloat16).apply)({"params": params}, IMAGES)
    assert half.dtype == jnp.bfloat16
    error = np.abs(np.asarray(half, np.float32) - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 0.1  # every layer in half precision, and yet the same network


def test_errors_name_the_field():
    def init(images=IMAGES, **fields):
        return jax.eval_shape(encoder(**fields).init, jax.random.key(0), images)

    with pytest.raises(ValueError, match="hidden_act must be one of quick_gelu, gelu"):
        init(hidden_act="relu")
    with pytest.raises(ValueError, match="num_heads 5"):
        init(num_heads=5)
    with pytest.raises(ValueError, match="images are 28 x 30 pixels, but image_size is 30"):
        init(IMAGES[:, :28])
