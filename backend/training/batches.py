"""Batches of cells of similar length, so that little of a batch is padding, made in advance."""

from __future__ import annotations

import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

__all__ = [
    "BATCHES_PER_BUCKET",
    "in_groups",
    "in_order_of_length",
    "prefetched",
    "training_batches",
]

BATCHES_PER_BUCKET: Final = 32
"""Cells of so many batches are drawn together, then sorted by length."""

_AHEAD: Final = 3
"""Batches that each worker makes in advance."""

Item = TypeVar("Item")
Made = TypeVar("Made")


def training_batches(
    lengths: np.ndarray,
    batch_size: int,
    *,
    seed: int,
    batches_per_bucket: int = BATCHES_PER_BUCKET,
) -> Iterator[np.ndarray]:
    """Yield the cells of each batch of one epoch, every cell once.

    Cells are shuffled, sorted by length within buckets of 32 batches, and the batches of a bucket
    are shuffled: batches stay random, and their cells are about equally long.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(lengths))
    size = batch_size * batches_per_bucket
    for start in range(0, len(order), size):
        bucket = order[start : start + size]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches = [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
        for index in generator.permutation(len(batches)):
            yield batches[index]


def in_order_of_length(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Yield the cells of each batch for prediction, longest first."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def in_groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield items in lists of `size`; the last one may be shorter."""
    waiting = iter(items)
    while group := list(itertools.islice(waiting, size)):
        yield group


def prefetched(
    items: Iterable[Item], make: Callable[[Item], Made], workers: int
) -> Iterator[tuple[Item, Made]]:
    """Yield each item with what `make` makes of it, in order; threads work ahead.

    With 0 workers everything is made when it is asked for.
    """
    if not workers:
        for item in items:
            yield item, make(item)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
    try:
        waiting: deque[tuple[Item, Future[Made]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(make, item)))
            if len(waiting) > workers * _AHEAD:
                first, made = waiting.popleft()
                yield first, made.result()
        while waiting:
            first, made = waiting.popleft()
            yield first, made.result()
    finally:
        pool.shutdown(cancel_futures=True)
