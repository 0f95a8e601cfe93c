"""The resize of Stable Video Diffusion's image encoder, against diffusers and closed forms."""

import jax
import numpy as np
import pytest

from videogen_jax.runtime.arrays import resize_antialiased


def noise(*shape):
    return np.random.default_rng(0).uniform(-1.0, 1.0, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((576, 1024), (224, 224)),
        ((100, 180), (224, 224)),
        ((224, 224), (224, 224)),
        ((90, 300), (56, 41)),  # one axis with a blur of 3 pixels, one of 13
        ((37, 64), (50, 1)),
        ((225, 223), (224, 224)),
    ],
)
def test_values_equal_those_of_diffusers(shape, size):
    torch = pytest.importorskip("torch")
    module = "diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion"
    pipeline = pytest.importorskip(module)
    images = noise(2, *shape, 3)  # white noise: the largest errors of a wrong kernel
    theirs = pipeline._resize_with_antialiasing(torch.from_numpy(images).movedim(-1, 1).contiguous(), size)
    found = jax.jit(resize_antialiased, static_argnums=1)(images, size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, theirs.movedim(1, -1).numpy(), rtol=0, atol=1e-4)


def test_corners_and_constants_stay():
    found = np.asarray(resize_antialiased(np.full((5, 7, 1), 0.3, np.float32), (11, 4)))
    np.testing.assert_allclose(found, 0.3, atol=1e-6)
    image = noise(6, 9, 2)
    enlarged = resize_antialiased(image, (13, 20))
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        np.testing.assert_allclose(enlarged[corner], image[corner], atol=1e-6)


def test_any_leading_axes_and_one_number_for_both_sides():
    images = noise(2, 3, 12, 10, 1)
    found = resize_antialiased(images, 5)
    assert found.shape == (2, 3, 5, 5, 1)
    np.testing.assert_allclose(found[1, 2], resize_antialiased(images[1, 2], (5, 5)), atol=1e-6)
    assert resize_antialiased(noise(1, 1, 3), 4).shape == (4, 4, 3)
    with pytest.raises(ValueError, match="size is 0 x 4"):
        resize_antialiased(images, (0, 4))
