"""Loading ahead: the order, how far ahead, and what becomes of errors and of a reader that stops."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from engine.data.prefetch import Prefetched


@pytest.mark.parametrize("n", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("ahead", [1, 2, 50])
def test_values_come_in_order(n: int, ahead: int) -> None:
    assert list(Prefetched(lambda key: key * key, range(n), ahead=ahead)) == [key * key for key in range(n)]


def test_it_can_be_read_again() -> None:
    values = Prefetched(str, range(4))
    assert list(values) == list(values) == ["0", "1", "2", "3"]


def test_loading_is_in_one_other_thread() -> None:
    threads = set(Prefetched(lambda _: threading.get_ident(), range(5)))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_what_comes_next_is_loaded_while_the_reader_works_and_no_more() -> None:
    loaded = [threading.Event() for _ in range(10)]

    def load(key: int) -> int:
        loaded[key].set()
        return key

    values = iter(Prefetched(load, range(10), ahead=2))
    assert next(values) == 0
    assert all(loaded[key].wait(10) for key in (1, 2))  # without the reader's asking
    assert next(values) == 1
    assert loaded[3].wait(10)
    assert not any(event.is_set() for event in loaded[4:])


def test_keys_are_asked_for_as_they_are_needed() -> None:
    asked: list[int] = []

    def keys() -> Iterator[int]:
        for key in range(100):
            asked.append(key)
            yield key

    values = iter(Prefetched(lambda key: key, keys(), ahead=3))
    assert [next(values) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(asked) <= 5 + 3


def test_an_error_is_raised_at_its_key() -> None:
    def load(key: int) -> int:
        if key == 3:
            raise ValueError(f"key {key}")
        return key

    values = iter(Prefetched(load, range(6)))
    assert [next(values) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="key 3"):
        next(values)
    with pytest.raises(StopIteration):
        next(values)


def test_a_reader_that_stops_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    values = iter(Prefetched(lambda key: key, range(1000)))
    next(values)
    assert set(threading.enumerate()) - before
    values.close()  # type: ignore[attr-defined]
    assert not set(threading.enumerate()) - before


def test_waiting_is_counted_and_working_is_not() -> None:
    gate = threading.Event()

    def load(key: int) -> int:
        assert gate.wait(10)
        return key

    values = Prefetched(load, range(2))
    threading.Timer(0.1, gate.set).start()
    assert list(values) == [0, 1]
    assert 0.02 < values.waited_s < 10
