import json

import pytest

from tests.data.test_loader import Numbers, draw
from videogen_jax.data.loader import make_loader
from videogen_jax.data.position import DataOrder, position, restore_position


class Images(Numbers):
    pass


def order(batch_size=4, seed=0, examples=(10,), image_fraction=0.0):
    return DataOrder(seed, batch_size, tuple(examples), image_fraction)


def rows(process, processes):
    """Return the rows of a batch of four that a process draws."""
    share = 4 // processes
    return range(process * share, (process + 1) * share)


def saved_after(batches, processes=1, **options):
    """Return the position that the last of `processes` saves after so many batches, after a round trip through JSON."""
    loader = make_loader(Numbers(10), 4, 0, rows(processes - 1, processes), **options)
    draw(loader, batches)
    return json.loads(json.dumps(position(loader, 4 // processes, order())))


@pytest.mark.parametrize("batches", [0, 1, 5])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_position_does_not_depend_on_processes_and_threads(batches, processes):
    saved = saved_after(batches, processes, num_threads=1 + processes, prefetch=processes)
    assert saved == saved_after(batches)
    assert saved == {"batches": [batches], "seed": 0, "batch_size": 4, "examples": [10], "image_fraction": 0.0}
    whole = draw(make_loader(Numbers(10), 4, 0), batches + 4)[batches:]
    for now in (1, 2, 4):
        shares = [make_loader(Numbers(10), 4, 0, rows(process, now), num_threads=3) for process in range(now)]
        for share in shares:
            restore_position(share, 4 // now, order(), saved)
        drawn = [draw(share, 4) for share in shares]
        assert [[x for share in shares for x in share] for shares in zip(*drawn, strict=True)] == whole


def test_another_batch_size_continues_at_the_same_example():
    examples = [x for batch in draw(make_loader(Numbers(10), 4, 0), 8) for x in batch]
    loader = make_loader(Numbers(10), 8, 0)
    restore_position(loader, 8, order(8), saved_after(2))
    assert [x for batch in draw(loader, 2) for x in batch] == examples[8:24]
    with pytest.raises(
        ValueError, match=r"config.batch_size is 8, but this run has drawn 3 batches of 4, which are not"
    ):
        restore_position(loader, 8, order(8), saved_after(3))


def test_two_sources_continue_at_their_own_positions():
    def make(processes=1, fraction=0.25):
        return make_loader(Numbers(8), 4, 0, rows(0, processes), images=Images(6), image_fraction=fraction)

    both = order(examples=(8, 6), image_fraction=0.25)
    loader = make()
    draw(loader, 5)
    saved = position(loader, 4, both)
    assert saved["batches"] == [4, 1]
    rest = draw(loader, 9)
    again = make()
    restore_position(again, 4, both, saved)
    assert draw(again, 9) == rest
    half = make(processes=2)
    restore_position(half, 2, both, saved)
    assert draw(half, 9) == [batch[:2] for batch in rest]
    restore_position(more := make(fraction=0.5), 4, order(examples=(8, 6), image_fraction=0.5), saved)
    assert position(more, 4, both)["batches"] == [4, 1]
    assert draw(more, 1)[0] in rest


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (order(seed=1), r"config.seed is 1, but this run shuffles its examples with seed 0; set it back, or train in"),
        (order(examples=[11]), r"config.data gives 11 examples, but this run shuffles 10: their order cannot be cont"),
        (order(examples=[10, 3], image_fraction=0.5), r"config.image_fraction is 0.5, but this run has 0.0; image"),
    ],
)
def test_an_order_that_cannot_be_continued_is_refused(now, message):
    with pytest.raises(ValueError, match=message):
        restore_position(make_loader(Numbers(10), 4, 0), 4, now, saved_after(2))
