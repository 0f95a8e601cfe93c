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
def test_restored_loader_goes_on_with_the_very_next_batch(stop):
    whole = draw(make_loader(Numbers(10), 4, seed=0), 9)  # batches reach over the ends of epochs
    loader = make_loader(Numbers(10), 4, seed=0)
    assert draw(loader, stop) == whole[:stop]
    state = loader.get_state()  # what has been read ahead is not counted as drawn
    draw(loader, 2)
    again = make_loader(Numbers(10), 4, seed=0)
    again.set_state(state)
    assert draw(again, 9 - stop) == whole[stop:]


def test_processes_share_the_examples_out():
    shares = [examples(make_loader(Numbers(12), 4, 0, process, 2), 3) for process in (0, 1)]
    assert sorted(shares[0]) == [0, 2, 4, 6, 8, 10]
    assert sorted(shares[1]) == [1, 3, 5, 7, 9, 11]


def test_batches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"config.batch_size is 3, which does not divide by 2 processes"):
        make_loader(Numbers(10), 3, 0, 0, 2)
    with pytest.raises(ValueError, match=r"config.data gives 3 examples, fewer than one batch of 4"):
        make_loader(Numbers(3), 4, 0)


def test_take_keeps_the_order():
    assert take(Numbers(9), [5, 0, 5])["index"].tolist() == [5, 0, 5]
