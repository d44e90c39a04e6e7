"""Loads what comes next in a thread of its own while the present is worked on; knows nothing of what it loads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Prefetched(Generic[_Key, _Value]):
    """The values of `load` for each key, in order, the next ones loaded ahead.

    Attributes:
        waited_s: seconds that the reader spent waiting for a value so far.
    """

    def __init__(self, load: Callable[[_Key], _Value], keys: Iterable[_Key], *, ahead: int = 2) -> None:
        """`load` runs in another thread and should free Python's lock; `ahead` values are kept ready."""
        self._load, self._keys, self._ahead = load, keys, ahead
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[_Value]:
        """Loads and gives one value a key; an error of `load` is raised at its key."""
        pending: deque[Future[_Value]] = deque()
        keys = iter(self._keys)
        pool = ThreadPoolExecutor(1)
        try:
            for key in keys:
                pending.append(pool.submit(self._load, key))
                if len(pending) > self._ahead:
                    yield self._next(pending)
            while pending:
                yield self._next(pending)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _next(self, pending: deque[Future[_Value]]) -> _Value:
        started_s = time.perf_counter()
        value = pending.popleft().result()
        self.waited_s += time.perf_counter() - started_s
        return value
