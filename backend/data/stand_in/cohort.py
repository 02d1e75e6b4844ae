"""All that is drawn before the first cell: samples, their cells of each kind, programmes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from backend.data.simulate import choose_genes, whole_parts
from backend.data.stand_in.facts import (
    COMPOSITION,
    KINDS,
    SAMPLES,
    SORTED_TYPES,
    TP_WORDS,
    Origin,
    tp_of,
)
from backend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FEWEST_CELLS", "MOST_CELLS", "PARENTS", "Cohort", "Sample", "plan_stand_in"]

FEWEST_CELLS: Final = 500
"""So that every type is there at every timepoint, and no sample is empty."""

MOST_CELLS: Final = 4_000_000
"""Ten times the atlas and some more; names of cells have seven digits."""

_FINAL: Final = tuple(COMPOSITION)
_PLACE: Final = {kind.name: place for place, kind in enumerate(KINDS)}
PARENTS: Final = np.array([_PLACE[kind.parent] for kind in KINDS])
"""Place in `KINDS` of each kind's parent."""

_DISTANCE: Final = {"Hea": 0.0, "Dia": 0.5, "TRT": 0.8, "MRD": 0.9, "Rel": 1.4}
"""How far blasts lie from their normal counterpart; they keep its name, as in the atlas."""

_FADING: Final = 0.55
_VARIATION: Final = 6.0
_FITTING_ROUNDS: Final = 100


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample and its cells of each of `KINDS`."""

    origin: Origin
    tp: str
    cells: np.ndarray = field(repr=False)

    @property
    def n_cells(self) -> int:
        """Cells of all kinds."""
        return int(self.cells.sum())


@dataclass(frozen=True, slots=True)
class Cohort:
    """Samples, genes and what shifts the expression of each kind (name → (n_genes,) float32).

    patients : shift of the blasts of a donor
    """

    seed: int
    genes: tuple[str, ...]
    samples: tuple[Sample, ...] = field(repr=False)
    base: np.ndarray = field(repr=False)
    kinds: np.ndarray = field(repr=False)
    sources: Mapping[str, np.ndarray] = field(repr=False)
    donors: Mapping[tuple[str, str], np.ndarray] = field(repr=False)
    patients: Mapping[tuple[str, str], np.ndarray] = field(repr=False)

    def profiles(self, sample: Sample) -> np.ndarray:
        """Return (n_kinds, n_genes) float32 relative expression in a sample."""
        origin = sample.origin
        person = (origin.dataset, origin.donor)
        log = self.kinds.copy()
        distance = np.float32(_DISTANCE[sample.tp])
        if distance:
            is_blast = np.array([kind.is_blast for kind in KINDS])
            # The further a clone has gone, the less of its lineage's programme is left.
            log[is_blast] *= 1 - np.float32(_FADING) * distance
            log[is_blast] += distance * self.patients[person]
        return np.exp(log + self.base + self.sources[origin.dataset] + self.donors[person])


def plan_stand_in(n_cells: int, *, seed: int = 0, n_genes: int = 18_000) -> Cohort:
    """Draw samples and programmes; type by timepoint is as published, to the cell where it can be.

    Raises
    ------
    InputError
        If there are too few or many cells or genes.
    """
    genes = choose_genes(n_genes, " ".join(kind.markers for kind in KINDS))
    if not FEWEST_CELLS <= n_cells <= MOST_CELLS:
        msg = (
            f"Cannot spread {n_cells:,} cells over {len(_FINAL)} types at {len(TP_WORDS)} "
            f"timepoints in {len(SAMPLES)} samples."
        )
        raise InputError(msg, f"Ask for {FEWEST_CELLS:,} to {MOST_CELLS:,} cells.")
    rng = np.random.default_rng([seed, 10])
    table = _cells_of(n_cells)
    samples: list[Sample] = []
    for column, tp in enumerate(TP_WORDS):
        mine = [origin for origin in SAMPLES if tp_of(origin.timepoint) == tp]
        for origin, by_type in zip(mine, _spread(mine, table[:, column], rng), strict=True):
            samples.append(Sample(origin, tp, _by_kind(by_type, rng)))
    samples.sort(key=lambda sample: SAMPLES.index(sample.origin))
    return _with_programmes(seed, genes, tuple(samples), rng)


def _cells_of(n_cells: int) -> np.ndarray:
    """Return cells of each type (rows) at each timepoint: the published shares, none empty."""
    shares = np.array(list(COMPOSITION.values()), dtype=float)
    cells = whole_parts(shares.ravel(), n_cells)
    is_empty = cells == 0
    cells[is_empty] = 1
    for _ in range(int(is_empty.sum())):
        cells[np.argmax(cells)] -= 1
    return cells.reshape(shares.shape)


def _spread(origins: list[Origin], cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share the cells of each type among samples: (n_samples, n_types), columns sum to `cells`.

    Samples differ in size and composition; sorted ones hold progenitors only.
    """
    sizes = np.array([origin.weight for origin in origins])
    drawn = sizes * rng.uniform(0.7, 1.3, len(origins))
    words = [(origin.dataset, origin.timepoint) for origin in origins]
    for word in dict.fromkeys(words):
        # What a source has of a timepoint word is published: only its samples differ in size.
        mine = np.array([word == other for other in words])
        sizes[mine] = drawn[mine] * (sizes[mine].sum() / drawn[mine].sum())
    sizes *= cells.sum() / sizes.sum()
    expected = rng.gamma(_VARIATION, 1 / _VARIATION, (len(origins), len(cells)))
    is_sorted = np.array([origin.is_sorted for origin in origins])
    expected[np.ix_(is_sorted, np.isin(_FINAL, SORTED_TYPES, invert=True))] = 0
    # Rows and columns are scaled in turn until the sizes of samples and of types are both met.
    for _ in range(_FITTING_ROUNDS):
        expected *= (sizes / expected.sum(axis=1))[:, None]
        expected *= cells / expected.sum(axis=0)
    spread = np.stack([whole_parts(expected[:, k], int(n)) for k, n in enumerate(cells)], axis=1)
    for row in np.flatnonzero(spread.sum(axis=1) == 0):
        fitting = spread * (expected[row] > 0)
        giver = np.argmax(np.where(fitting.any(axis=1), spread.sum(axis=1), 0))
        kind = np.argmax(fitting[giver])
        spread[giver, kind] -= 1
        spread[row, kind] += 1
    return spread


def _by_kind(by_type: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Part each type's cells into its kinds by chance."""
    cells = np.zeros(len(KINDS), dtype=np.int64)
    for name, n in zip(_FINAL, by_type, strict=True):
        mine = [place for place, kind in enumerate(KINDS) if kind.final == name]
        shares = np.array([KINDS[place].cells for place in mine], dtype=float)
        cells[mine] = rng.multinomial(int(n), shares / shares.sum())
    return cells


def _with_programmes(
    seed: int, genes: tuple[str, ...], samples: tuple[Sample, ...], rng: np.random.Generator
) -> Cohort:
    n = len(genes)
    place = {gene: position for position, gene in enumerate(genes)}

    def some_genes(share: float, low: float, high: float) -> np.ndarray:
        size = rng.uniform(low, high, n) * (rng.random(n) < share) * rng.choice([-1.0, 1.0], n)
        return size.astype(np.float32)

    def all_genes(spread: float) -> np.ndarray:
        return rng.normal(0, spread, n).astype(np.float32)

    kinds = np.zeros((len(KINDS), n), dtype=np.float32)
    for row, kind in enumerate(KINDS):
        kinds[row] = kinds[PARENTS[row]] * np.float32(0.75) + some_genes(0.04, 0.4, 1.1)
        kinds[row, [place[gene] for gene in kind.markers.split()]] += np.float32(1.7)
    donors = list(dict.fromkeys((origin.dataset, origin.donor) for origin in SAMPLES))
    ill = {(sample.origin.dataset, sample.origin.donor) for sample in samples if sample.tp != "Hea"}
    # The two batches of one study share its shift; each has a smaller one of its own.
    studies = {name: all_genes(0.2) for name in ("nuig", "petti", "oetjen", "vanG", "granja")}
    sources = {
        name: studies[name.partition("_")[0]] + all_genes(0.06)
        for name in dict.fromkeys(origin.dataset for origin in SAMPLES)
    }
    shared = some_genes(0.08, 0.5, 1.2)
    return Cohort(
        seed=seed,
        genes=genes,
        samples=samples,
        base=all_genes(1.2),
        kinds=kinds,
        sources=sources,
        donors={donor: all_genes(0.15) for donor in donors},
        patients={donor: shared + some_genes(0.08, 0.4, 1.2) for donor in donors if donor in ill},
    )
