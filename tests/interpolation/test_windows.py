import pytest

from videogen_jax.interpolation.windows import sliding_windows


@pytest.mark.parametrize("count", range(1, 30))
@pytest.mark.parametrize(("size", "before", "after"), [(4, 1, 2), (8, 2, 2), (3, 0, 0), (9, 1, 2)])
def test_each_item_is_yielded_once_with_its_context(count, size, before, after):
    items = []
    for window, first, end in sliding_windows(range(count), size, before, after):
        assert len(window) == min(size, count)
        assert window == list(range(window[0], window[0] + len(window)))
        for item in window[first:end]:
            items.append(item)
            assert window[0] <= max(0, item - before)
            assert window[-1] >= min(count - 1, item + after)
    assert items == list(range(count))


def test_no_more_than_two_windows_are_read_ahead():
    read = []
    items = (read.append(item) or item for item in range(100))
    done = 0
    for _, first, end in sliding_windows(items, 8, 2, 2):
        done += end - first
        assert len(read) - done <= 8
