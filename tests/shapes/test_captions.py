"""Captions of the shapes world on which a model is evaluated."""

from collections import Counter

import pytest

from videogen_jax.shapes import world
from videogen_jax.shapes.captions import sample_captions


def test_captions_cover_the_split_evenly():
    sampled = sample_captions(64)
    said = [world.parse_caption(caption) for caption in sampled]
    triples = Counter((s.colour, s.shape, s.motion) for s in said)
    assert set(triples) == set(world.all_triples("held_out"))
    assert max(triples.values()) == 2
    sizes, backgrounds = Counter(s.size for s in said), Counter(s.background for s in said)
    assert max(sizes.values()) - min(sizes.values()) <= 8
    assert set(backgrounds) == set(world.BACKGROUNDS)
    first = said[:16]
    assert len({s.motion for s in first}) == 16
    for values, of_each in (([s.colour for s in first], (1, 3)), ([s.shape for s in first], (3, 5))):
        assert set(Counter(values).values()) <= set(range(of_each[0], of_each[1] + 1)), values
    assert sample_captions(16) == sampled[:16]
    assert len(set(sample_captions(600, "train"))) == 600
    with pytest.raises(ValueError, match="number of prompts is 0"):
        sample_captions(0)
