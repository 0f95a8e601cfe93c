import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL as PublicAutoencoder
from diffusers import AutoencoderKLTemporalDecoder as PublicVideoAutoencoder
from flax.traverse_util import flatten_dict, unflatten_dict

from videogen_jax.models.autoencoder import AutoencoderKL, DiagonalGaussian, TemporalDecoder, inflate_decoder
from videogen_jax.models.discriminator import VideoDiscriminator
from videogen_jax.models.vgg import MEAN, STD, VGG16Features, perceptual_distance
from videogen_jax.weights.naming import from_public

TINY = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
TEMPORAL = ("temporal_res_block", "time_mixer", "time_conv_out")


def randomize(module, seed=0):
    """Random parameters of a torch module, none of them at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            scale = 0.7 / np.sqrt(p[0].numel()) if p.ndim > 1 else 0.2
            p.copy_(scale * torch.randn(p.shape, generator=generator) + (p.ndim == 1 and "norm" in name))
    return module.eval()


def numpy_state(module):
    return {name: value.numpy() for name, value in module.state_dict().items()}


def first_channels(x):
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def last_channels(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("quant", "widths"), [(True, (8, 16)), (False, (8,))])
def test_autoencoder_gives_what_diffusers_gives(quant, widths):
    levels = len(widths)
    fields = {**TINY, "block_out_channels": widths, "use_quant_conv": quant, "use_post_quant_conv": quant}
    types = {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    public = randomize(PublicAutoencoder(**fields, **types))
    ours = AutoencoderKL(**fields)
    images, latents = normal(2, 6 * levels, 4 * levels, 3), normal(2, 6, 4, 4, seed=1)
    template = jax.eval_shape(ours.init, jax.random.key(0), images, jax.random.key(0))["params"]
    params = from_public(numpy_state(public), template)

    @jax.jit
    def apply(params, images, latents):
        posterior = ours.apply({"params": params}, images, method="encode")
        return posterior, ours.apply({"params": params}, latents, method="decode")

    posterior, decoded = apply(params, images, latents)
    expected = public.encode(first_channels(images)).latent_dist
    np.testing.assert_allclose(posterior.mean, last_channels(expected.mean), atol=1e-4)
    np.testing.assert_allclose(posterior.log_variance, last_channels(expected.logvar), atol=1e-4)
    np.testing.assert_allclose(decoded, last_channels(public.decode(first_channels(latents)).sample), atol=1e-4)
    kl = expected.kl().sum() / expected.mean.numel()
    np.testing.assert_allclose(posterior.kl(), kl.detach().numpy(), rtol=1e-4)


def test_posterior_samples_have_its_moments():
    posterior = DiagonalGaussian(jnp.full((4000, 1, 1, 2), 3.0), jnp.full((4000, 1, 1, 2), np.log(0.25)))
    drawn = posterior.sample(jax.random.key(0))
    assert abs(float(drawn.mean()) - 3.0) < 0.03
    assert abs(float(drawn.std()) - 0.5) < 0.02
    np.testing.assert_allclose(posterior.kl(), 0.5 * (9 + 0.25 - 1 - np.log(0.25)), rtol=1e-6)


def test_autoencoder_refuses_frames_that_do_not_divide():
    model = AutoencoderKL(**TINY)
    with pytest.raises(ValueError, match=r"\(9, 8\) pixels do not divide by 2"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 9, 8, 3)), jax.random.key(0))


@pytest.mark.parametrize(("layers_per_block", "widths"), [(2, (32,)), (1, (32, 64))])
def test_video_decoder_gives_what_diffusers_gives(layers_per_block, widths):
    # In the public layout the middle has as many residual blocks as `layers_per_block`, and norms have 32 groups.
    levels = len(widths)
    fields = {"layers_per_block": layers_per_block, "block_out_channels": widths}
    public = randomize(PublicVideoAutoencoder(**fields, down_block_types=("DownEncoderBlock2D",) * levels)).decoder
    ours = TemporalDecoder(**fields, mid_block_layers=layers_per_block)
    latents = normal(2, 3, 4, 2, 4)
    template = jax.eval_shape(ours.init, jax.random.key(0), latents)["params"]
    state = numpy_state(public)
    if layers_per_block == 1:  # the public module then has an attention that it never calls
        state = {name: value for name, value in state.items() if not name.startswith("mid_block.attentions")}
    params = from_public(state, template)
    actual = jax.jit(ours.apply)({"params": params}, latents)
    expected = public(first_channels(latents.reshape(6, 4, 2, 4)), torch.zeros(2, 3), num_frames=3)
    np.testing.assert_allclose(actual.reshape(6, 4 * levels, 2 * levels, 3), last_channels(expected), atol=1e-4)


@pytest.fixture(scope="module")
def inflated():
    """An image autoencoder, the video decoder started from it, and the latents of two videos."""
    image = AutoencoderKL(**TINY)
    video = TemporalDecoder(**TINY, use_post_quant_conv=True)
    latents = normal(2, 3, 4, 4, 4)
    shapes = jax.eval_shape(image.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jax.random.key(0))["params"]
    vae = jax.tree.map(random_leaf, shapes)

    def init_temporal(rng):  # alone, which compiles sooner
        return {p: x for p, x in flatten_dict(video.init(rng, latents)["params"]).items() if set(p) & set(TEMPORAL)}

    shapes = flatten_dict(jax.eval_shape(video.init, jax.random.key(0), latents)["params"])
    blank = {path: np.full(leaf.shape, np.nan, leaf.dtype) for path, leaf in shapes.items()}
    fresh = unflatten_dict({**blank, **jax.jit(init_temporal)(jax.random.key(2))})
    return image, vae, jax.jit(video.apply), inflate_decoder(vae, fresh), latents


def random_leaf(shape):
    """A kernel as it is initialised, or a scale or bias that is neither one nor zero."""
    scale = 1 / np.sqrt(np.prod(shape.shape[:-1])) if len(shape.shape) > 1 else 0.2
    return (scale * normal(*shape.shape) + (len(shape.shape) == 1)).astype(np.float32)


def test_video_decoder_begins_as_the_image_decoder(inflated):
    image, vae, apply, params, latents = inflated
    actual = apply({"params": params}, latents)
    decode = jax.jit(lambda params, latents: image.apply({"params": params}, latents, method="decode"))
    expected = decode(vae, latents.reshape(6, 4, 4, 4))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(actual.reshape(6, 8, 8, 3), expected, atol=3e-6)  # float32 rounding: 1.5e-6 seen


def test_trained_temporal_layers_let_the_frames_of_one_video_interact(inflated):
    _, _, apply, params, latents = inflated
    leaves = flatten_dict(params)
    moved = {p: np.asarray(x) + np.float32(0.1) if set(p) & set(TEMPORAL) else x for p, x in leaves.items()}
    params = unflatten_dict(moved)
    changed = latents.copy()
    changed[0, 2] += 1
    changes = np.abs(apply({"params": params}, changed) - apply({"params": params}, latents)).max((2, 3, 4))
    assert changes[0].min() > 1e-4  # every frame of the video
    assert changes[1].max() == 0  # and no other video


def test_inflating_names_what_does_not_fit(inflated):
    _, vae, _, params, latents = inflated
    without = {name: value for name, value in params.items() if name != "post_quant_conv"}
    with pytest.raises(ValueError, match="needs use_post_quant_conv=True"):
        inflate_decoder(vae, without)
    wider = TemporalDecoder(**{**TINY, "block_out_channels": (8, 32)}, use_post_quant_conv=True)
    shapes = jax.eval_shape(wider.init, jax.random.key(0), latents)["params"]
    with pytest.raises(ValueError, match=r"decoder/.* is \(.*16.*\) in the image decoder, \(.*32.*\) in the video's"):
        inflate_decoder(vae, shapes)
    deeper = TemporalDecoder(**{**TINY, "layers_per_block": 2}, use_post_quant_conv=True)
    shapes = jax.eval_shape(deeper.init, jax.random.key(0), latents)["params"]
    with pytest.raises(ValueError, match="no parameter decoder/up_blocks_0/resnets_2"):
        inflate_decoder(vae, shapes)


def test_remat_of_the_video_decoder_changes_no_parameter(inflated):
    *_, params, latents = inflated
    remat = TemporalDecoder(**TINY, use_post_quant_conv=True, remat=True)
    shapes = jax.eval_shape(remat.init, jax.random.key(0), latents)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)


def test_discriminator_heads():
    critic = VideoDiscriminator((4, 8), norm_num_groups=4)
    video = normal(2, 3, 16, 8, 3)
    params = jax.tree.map(random_leaf, jax.eval_shape(critic.init, jax.random.key(0), video))
    apply = jax.jit(lambda video: critic.apply(params, video))
    logits = apply(video)
    assert {name: x.shape for name, x in logits.items()} == {"spatial": (6, 4, 2, 1), "temporal": (2, 3, 4, 2, 1)}
    # The spatial head judges each frame alone; to the temporal head the order of frames matters.
    flipped = apply(video[:, ::-1])
    spatial = logits["spatial"].reshape(2, 3, 4, 2)
    np.testing.assert_allclose(flipped["spatial"].reshape(2, 3, 4, 2)[:, ::-1], spatial, atol=1e-5)
    assert np.abs(flipped["temporal"][:, ::-1] - logits["temporal"]).max() > 1e-3


def test_vgg_features_are_those_of_torchvisions_layers():
    convolution, relu, pool = torch.nn.Conv2d, torch.nn.ReLU, torch.nn.MaxPool2d
    layers = []
    for width in (64, 64, None, 128, 128, None, 256, 256, 256, None, 512, 512, 512):
        inner = next((layer.out_channels for layer in reversed(layers) if isinstance(layer, convolution)), 3)
        layers += [pool(2)] if width is None else [convolution(inner, width, 3, padding=1), relu()]
    features = randomize(torch.nn.Sequential(*layers))
    state = {f"features.{name}": value for name, value in numpy_state(features).items()}
    frames = np.tanh(normal(2, 16, 16, 3))
    template = jax.eval_shape(VGG16Features().init, jax.random.key(0), frames)["params"]
    params = from_public(state, template)
    maps = jax.jit(VGG16Features().apply)({"params": params}, frames)

    x, expected = first_channels((0.5 * frames + 0.5 - np.float32(MEAN)) / np.float32(STD)), []
    for index, layer in enumerate(features):
        x = layer(x)
        if index in (3, 8, 15, 22):  # relu1_2, relu2_2, relu3_3, relu4_3
            expected.append(last_channels(x))
    for ours, theirs in zip(maps, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_perceptual_distance_of_equal_and_of_dead_features():
    a, dead = normal(1, 4, 4, 3), np.zeros((1, 4, 4, 3), np.float32)
    distance = jax.jit(perceptual_distance)
    assert distance([a, a], [a, a]) == 0
    np.testing.assert_allclose(distance([a, a], [2 * a, -a]), 4.0, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: perceptual_distance([x], [a])))(dead)
    assert np.isfinite(gradient).all()
