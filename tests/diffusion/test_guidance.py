import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.diffusion.guidance import (
    PASSES,
    GuidanceScales,
    classifier_free,
    guidance_passes,
    guide,
    text_and_reference,
)

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


@pytest.mark.parametrize(
    ("scales", "passes"),
    [
        ((3.0, 2.0), PASSES),
        ((3.0, 1.0), ("reference_only", "full")),
        ((2.0, 2.0), ("uncond", "full")),
        ((1.0, 1.0), ("full",)),
        ((0.0, 1.0), ("reference_only", "full")),
    ],
)
def test_passes_without_weight_are_left_out_and_change_nothing(scales, passes):
    assert guidance_passes(*scales) == passes
    outputs = jnp.concatenate([output for name, output in zip(PASSES, (A, B, C), strict=True) if name in passes])
    guided = guide(outputs, passes, GuidanceScales(*scales))
    np.testing.assert_allclose(guided, text_and_reference(A, B, C, *scales), atol=1e-5)


@pytest.mark.parametrize("passes", [(), ("uncond",), ("full", "uncond"), ("uncond", "reference_only")])
def test_passes_that_cannot_be_combined_are_refused(passes):
    with pytest.raises(ValueError, match=r"passes is .*must be one of \('full',\), \('uncond', 'full'\)"):
        guide(A, passes, GuidanceScales(2.0))
