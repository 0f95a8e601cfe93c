import pytest

from videogen_jax.studio.clients import Client, Slots, client_of
from videogen_jax.studio.errors import Refused
from videogen_jax.studio.fair_queue import FairQueue

A, B, C = Client("10.0.0.1", "a" * 32), Client("10.0.0.2", "b" * 32), Client("10.0.0.1", "c" * 32)


def filled(*owners: Client) -> FairQueue:
    queue = FairQueue()
    for number, owner in enumerate(owners):
        queue.push(owner, (owner, number))
    return queue


def test_clients_take_turns():
    queue = filled(A, A, A, B, B)
    assert [number for _, number in queue.order()] == [0, 3, 1, 4, 2]
    assert [queue.pop()[1] for _ in range(5)] == [0, 3, 1, 4, 2]


def test_a_late_client_is_next():
    queue = filled(A, A, A)
    queue.pop()
    queue.push(B, (B, 9))
    assert queue.pop() == (B, 9)


def test_addresses_take_turns_so_new_cookies_gain_nothing():
    cookies = [Client("10.0.0.1", f"{number:032x}") for number in range(4)]
    queue = filled(*cookies, B, B)
    assert [owner.address for owner, _ in queue.order()][:4] == ["10.0.0.1", "10.0.0.2"] * 2


def test_clients_of_an_address_take_turns():
    assert [number for _, number in filled(A, A, C).order()] == [0, 2, 1]


def test_order_predicts_the_order_of_pop():
    queue = filled(A, A, C, B, A, C)
    queue.pop()
    order = queue.order()
    assert [queue.pop() for _ in range(len(queue))] == order


def test_items_are_removed_and_counted():
    queue = filled(A, A, C, B)
    item = queue.order()[0]
    assert (queue.count(client=A), queue.count(address="10.0.0.1"), len(queue)) == (2, 3, 4)
    assert queue.remove(item)
    assert not queue.remove(item)
    assert (queue.count(client=A), len(queue)) == (1, 3)
    with pytest.raises(IndexError):
        FairQueue().pop()


def test_a_client_is_its_cookie_and_address():
    assert client_of("10.0.0.1", "c" * 32) == C
    for cookie in (None, "", "C" * 32, "c" * 31, "c" * 33, "c" * 32 + "\n", "../" + "c" * 29):
        assert client_of("10.0.0.1", cookie) == Client("10.0.0.1", "")
    network = client_of("2001:db8:1:2:aaaa::1", None)
    assert network == client_of("2001:db8:1:2:bbbb::2", None) != client_of("2001:db8:1:3::1", None)
    assert client_of("::1", None).address == "::1"


def test_slots_are_bounded_per_client_per_address_and_in_total():
    slots = Slots("streams", per_client=1, per_address=2, total=3)
    with slots.hold(A):
        with pytest.raises(Refused, match="Too many streams are open from here"), slots.hold(A):
            pass
        with slots.hold(C), pytest.raises(Refused), slots.hold(Client("10.0.0.1", "d" * 32)):
            pass
        with slots.hold(B), slots.hold(C):
            assert len(slots) == 3
            with pytest.raises(Refused) as refused, slots.hold(Client("10.0.0.3", "")):
                pass
            assert refused.value.status == 503
    with slots.hold(A):
        assert len(slots) == 1
    assert len(slots) == 0
