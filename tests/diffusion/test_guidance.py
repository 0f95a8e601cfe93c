import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.diffusion.guidance import classifier_free, rescale, text_and_reference

A, B, C = (jax.random.normal(jax.random.key(i), (2, 3, 4, 4, 2)) for i in range(3))


def test_classifier_free_runs_on_the_line_through_both_outputs():
    np.testing.assert_allclose(classifier_free(A, B, 0.0), A, atol=1e-6)
    np.testing.assert_allclose(classifier_free(A, B, 1.0), B, atol=1e-6)
    np.testing.assert_allclose(classifier_free(A, B, 7.5), -6.5 * A + 7.5 * B, atol=1e-5)


def test_a_scale_for_each_sample_or_frame():
    guided = classifier_free(A, B, jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(guided[1], classifier_free(A, B, 3.0)[1], atol=1e-6)
    guided = classifier_free(A, B, jnp.arange(6.0).reshape(2, 3))
    np.testing.assert_allclose(guided[1, 2], classifier_free(A, B, 5.0)[1, 2], atol=1e-6)


def test_text_and_reference_weighs_the_two_apart():
    np.testing.assert_allclose(text_and_reference(A, B, C, 1.0, 1.0), C, atol=1e-5)
    np.testing.assert_allclose(text_and_reference(A, B, C, 0.0, 1.0), B, atol=1e-5)
    np.testing.assert_allclose(text_and_reference(A, B, C, 0.0, 0.0), A, atol=1e-5)
    np.testing.assert_allclose(text_and_reference(A, B, C, 4.0, 2.0), -A + 2 * B + 4 * (C - B), atol=1e-5)
    # With reference dropped from the middle output it is plain classifier-free guidance.
    np.testing.assert_allclose(text_and_reference(A, A, C, 4.0, 9.0), classifier_free(A, C, 4.0), atol=1e-5)


def test_guidance_is_the_same_for_every_prediction_type():
    """Guiding velocities and converting to noise equals converting first: the formulas are affine with weights of 1."""
    x_t, alpha, sigma = A * 0.5, 0.6, 0.8
    noise = [alpha * v + sigma * x_t for v in (A, B, C)]
    guided = text_and_reference(A, B, C, 5.0, 2.0)
    np.testing.assert_allclose(alpha * guided + sigma * x_t, text_and_reference(*noise, 5.0, 2.0), atol=1e-5)


def test_rescale_restores_the_standard_deviation():
    guided = 3.0 * A + 1.0
    axes = (1, 2, 3, 4)
    np.testing.assert_array_equal(rescale(guided, B, 0.0), guided)
    np.testing.assert_allclose(jnp.std(rescale(guided, B, 1.0), axes), jnp.std(B, axes), rtol=1e-5)
    np.testing.assert_allclose(
        jnp.std(rescale(guided, B, 0.7), axes), 0.7 * jnp.std(B, axes) + 0.3 * jnp.std(guided, axes), rtol=1e-5
    )


def test_rescale_of_a_blank_output_is_blank():
    np.testing.assert_array_equal(rescale(jnp.zeros_like(A), B, 0.7), np.zeros_like(A))


def test_rescale_equals_diffusers():
    torch = pytest.importorskip("torch", reason="diffusers' guidance rescaling needs torch")
    pytest.importorskip("diffusers", reason="rescaling is compared with diffusers'")
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    theirs = rescale_noise_cfg(torch.tensor(np.asarray(A)), torch.tensor(np.asarray(B)), guidance_rescale=0.7)
    np.testing.assert_allclose(rescale(A, B, 0.7), theirs.numpy(), atol=1e-5)
