"""Captions of the shapes world on which a model is evaluated."""

import numpy as np

from videogen_jax.shapes import world

_CARDINALITIES = (len(world.COLOURS), len(world.SHAPES), len(world.MOTIONS))


def sample_captions(count: int, split: str = "held_out", seed: int = 0) -> list[str]:
    """Draw captions that cover the split's colours, shapes and motions as evenly as it allows.

    No triple comes twice before each has come once; sizes and backgrounds take turns. The first n captions are the
    same for every count of at least n.

    Raises:
      ValueError: count is below 1, or there is no such split.
    """
    if count < 1:
        raise ValueError(f"the number of prompts is {count}, but must be at least 1")
    rng = np.random.default_rng(seed)
    triples = list(world.all_triples(split))
    rng.shuffle(triples)
    settings = [(size, background) for size in world.SIZES for background in world.BACKGROUNDS]
    triple_counts = dict.fromkeys(triples, 0)
    value_counts: list[dict[str, int]] = [{}, {}, {}]  # of colours, shapes and motions

    def times_used(triple: tuple[str, str, str]) -> tuple[int, int]:
        shares = zip(triple, value_counts, _CARDINALITIES, strict=True)
        return triple_counts[triple], sum(counts.get(value, 0) * values for value, counts, values in shares)

    captions = []
    for number in range(count):
        if number % len(settings) == 0:
            rng.shuffle(settings)
        triple = min(triples, key=times_used)  # of several that were used least, the first as shuffled
        triple_counts[triple] += 1
        for value, counts in zip(triple, value_counts, strict=True):
            counts[value] = counts.get(value, 0) + 1
        size, background = settings[number % len(settings)]
        captions.append(world.ShapesClip(size, *triple, background, 0.5, 0.5).caption)
    return captions
