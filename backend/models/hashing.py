"""Random numbers that depend on what they are for, never on the order in which they are drawn.

A sequential generator gives a cell another number when a gene is moved or a chunk is cut
elsewhere. Here the number is a hash of (seed, draw, cell id, gene): the same wherever the cell
is met. The mixing function is the finaliser of SplitMix64 (Steele, Lea & Flood 2014,
doi:10.1145/2660193.2660195).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["cell_keys", "hash_names", "mix", "stream_key", "uniform"]

_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))
_WORD: Final = (1 << 64) - 1


def mix(words: np.ndarray) -> np.ndarray:
    """Scramble 64-bit words so that any change of the input flips half of the output's bits."""
    mixed = np.array(words, dtype=np.uint64, ndmin=1)
    mixed ^= mixed >> _SHIFTS[0]
    mixed *= _FIRST
    mixed ^= mixed >> _SHIFTS[1]
    mixed *= _SECOND
    mixed ^= mixed >> _SHIFTS[2]
    return mixed


def hash_names(names: Iterable[str]) -> np.ndarray:
    """Return a 64-bit hash of each name, the same on every machine and in every process."""
    digests = b"".join(
        hashlib.blake2b(str(name).encode("utf-8"), digest_size=8).digest() for name in names
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def stream_key(seed: int, draw: int, purpose: str = "") -> np.uint64:
    """Return the key of one stream of numbers: a seed, a draw of it, and what it is drawn for."""
    words = np.array([seed & _WORD, draw & _WORD], dtype=np.uint64)
    purposes = hash_names([purpose])
    return mix(mix(words[:1] + _STEP) + mix(words[1:] + _FIRST) + purposes)[0]


def cell_keys(stream: np.uint64, cells: np.ndarray) -> np.ndarray:
    """Return the key of each cell (hashes from `hash_names`) in a stream from `stream_key`."""
    return mix(cells ^ stream)


def uniform(keys: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Return a number in [0, 1) for each pair of a cell's key and a gene's hash.

    Parameters
    ----------
    keys, genes
        From `cell_keys` and `hash_names`, of one shape or of shapes that broadcast.

    Returns
    -------
    float64 multiples of 2**-53.
    """
    return (mix(keys + genes) >> np.uint64(11)) * 2.0**-53
