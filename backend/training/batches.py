"""Batches of cells of similar length, so that little of a batch is padding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["in_order_of_length", "training_batches"]

BATCHES_PER_BUCKET: Final = 32
"""Cells of so many batches are drawn together, then sorted by length."""


def training_batches(lengths: np.ndarray, batch_size: int, *, seed: int) -> Iterator[np.ndarray]:
    """Yield the cells of each batch of one epoch, every cell once.

    Cells are shuffled, sorted by length within buckets of 32 batches, and the batches of a bucket
    are shuffled: batches stay random, and their cells are about equally long.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(lengths))
    size = batch_size * BATCHES_PER_BUCKET
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
