import itertools

import numpy as np
import pytest

from videogen_jax.data.loader import make_loader, take


class Numbers:
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"index": np.int64(index), "square": np.full(2, index**2)}


def draw(loader, batches):
    return [next(loader)["index"].tolist() for _ in range(batches)]


def examples(loader, batches):
    return list(itertools.chain.from_iterable(draw(loader, batches)))


def test_every_epoch_is_another_shuffle_of_all_examples():
    loader = make_loader(Numbers(12), 4, seed=0)
    first, second = examples(loader, 3), examples(loader, 3)
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert first != list(range(12))
    assert examples(make_loader(Numbers(12), 4, seed=1), 3) != first
    batch = next(loader)
    np.testing.assert_array_equal(batch["square"], np.stack([batch["index"] ** 2] * 2, axis=-1))


def test_order_does_not_depend_on_threads():
    orders = [draw(make_loader(Numbers(20), 4, seed=3, num_threads=n, prefetch=p), 8) for n, p in ((1, 1), (4, 16))]
    assert orders[0] == orders[1]


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_restored_loader_continues_with_the_next_batch(stop):
    whole = draw(make_loader(Numbers(10), 4, seed=0), 9)  # batches span the ends of epochs
    loader = make_loader(Numbers(10), 4, seed=0)
    assert draw(loader, stop) == whole[:stop]
    state = loader.get_state()  # examples read ahead do not count as drawn
    draw(loader, 2)
    again = make_loader(Numbers(10), 4, seed=0)
    again.set_state(state)
    assert draw(again, 9 - stop) == whole[stop:]


def test_processes_together_draw_what_one_alone_would():
    alone = draw(make_loader(Numbers(10), 4, seed=0), 5)
    for rows in ((0, 1), (2, 3), (0, 2, 3), (1,)):
        share = draw(make_loader(Numbers(10), 4, 0, rows), 5)
        assert share == [[whole[row] for row in rows] for whole in alone]


class Dice(Numbers):
    num_workers = 1

    def draw(self, index, rng):
        return {"index": np.int64(index), "value": rng.integers(10**9)}


def test_a_source_may_draw_new_views_each_epoch_but_the_same_in_every_run():
    def views(loader, batches):
        views = [next(loader) for _ in range(batches)]
        return [(int(i), int(t)) for batch in views for i, t in zip(batch["index"], batch["value"], strict=True)]

    loader = make_loader(Dice(8), 4, seed=0)
    first, state, second = views(loader, 2), loader.get_state(), views(loader, 2)
    assert sorted(i for i, _ in first) == sorted(i for i, _ in second) == list(range(8))
    assert not set(first) & set(second)
    again = make_loader(Dice(8), 4, seed=0, num_threads=7)
    again.set_state(state)
    assert views(again, 2) == second
    shares = [make_loader(Dice(8), 4, 0, rows) for rows in ((0, 3), (1, 2))]
    assert sorted(view for share in shares for view in views(share, 2)) == sorted(first)


def test_images_come_in_batches_of_their_own():
    class Images(Numbers):
        def __getitem__(self, index):
            return {"image": np.int64(index)}

    def kinds(loader, batches):
        return [next(iter(next(loader))) for _ in range(batches)]

    def make():
        return make_loader(Numbers(8), 4, 0, images=Images(6), image_fraction=0.25)

    loader = make()
    names = kinds(loader, 8)
    assert names.count("image") == 2
    state, rest = loader.get_state(), kinds(loader, 12)
    again = make()
    again.set_state(state)
    assert kinds(again, 12) == rest
    assert rest.count("image") == 3
    with pytest.raises(ValueError, match=r"config.image_fraction is 0.0; with config.image_data it must be within \(0"):
        make_loader(Numbers(8), 4, 0, images=Images(6))


def test_batches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"config.data gives 3 examples, fewer than one batch of 4"):
        make_loader(Numbers(3), 4, 0)


def test_take_keeps_the_order():
    assert take(Numbers(9), [5, 0, 5])["index"].tolist() == [5, 0, 5]
