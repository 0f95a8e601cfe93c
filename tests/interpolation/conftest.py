"""Models for the tests of interpolation."""

import pytest

from videogen_jax.interpolation.interpolator import Interpolator
from videogen_jax.weights.hub import EMBEDDED, resolve


@pytest.fixture(scope="session")
def tiny_interpolator(tiny_model) -> Interpolator:
    """With untrained weights; frames are padded to even sides."""
    return Interpolator.from_pretrained(tiny_model, window=6)


@pytest.fixture(scope="session")
def trained_interpolator() -> Interpolator:
    """Of the embedded model."""
    return Interpolator.from_pretrained(resolve(EMBEDDED), window=8)
