"""Write the stand-in as the authors' program wrote the atlas, piece by piece."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backend.data.simulate import ABOUT
from backend.data.stand_in import STAGES
from backend.data.stand_in.cohort import PARENTS, Cohort, Sample, plan_stand_in
from backend.data.stand_in.facts import CITATION, COMPOSITION, KINDS, SAMPLES, TP_WORDS
from backend.data.writer import ABOUT_FIELDS
from backend.errors import InputError
from backend.files import check_room, complete_or_absent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import h5py
    from scipy.sparse import csr_matrix

__all__ = ["write_stand_in"]

_CELLS_PER_CHUNK: Final = 1_024
_VALUES_PER_CHUNK: Final = 131_072
_ROWS_PER_CHUNK: Final = 16_384
_BYTES_PER_VALUE: Final = 16
_LEAST_BYTES_PER_VALUE: Final = 2
_FEW_GENES_OF_CELL: Final = 1_000
_SPARE: Final = 16 << 20
"""Room for what some twenty open parts hold back in memory until the file is closed."""

_PACKED: Final[dict[str, Any]] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
_DEPTH: Final = 2_000.0
_MOST_TRANSCRIPTS: Final = 30_000
_MATRICES: Final = ("X", "layers/counts")


def _words(values: list[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


_CATEGORIES: Final[dict[str, tuple[str, ...]]] = {
    "dataset": _words([origin.dataset for origin in SAMPLES]),
    "sample": _words([origin.name for origin in SAMPLES]),
    "donor": _words([origin.donor for origin in SAMPLES]),
    "timepoint": _words([origin.timepoint for origin in SAMPLES if origin.timepoint]),
    "celltype": _words([kind.raw for kind in KINDS]),
    # What the atlas' batches are is not published: a number for each source.
    "batch": tuple(str(n) for n in range(len({origin.dataset for origin in SAMPLES}))),
    "celltype_final": tuple(sorted(COMPOSITION)),
    "tp": TP_WORDS,
}
"""Columns of text and their words. A file states them before its first cell."""

_NUMBERS: Final = {"size_factors": np.float64, "doublet": np.bool_, "dbl_score": np.float64}
_COLUMNS: Final = (
    *("dataset", "sample", "donor", "timepoint", "celltype", "batch"),
    *_NUMBERS,
    *("celltype_final", "tp"),
)
_ADDED_LATER: Final = ("celltype_final", "tp")


def write_stand_in(
    path: str | Path,
    n_cells: int,
    *,
    seed: int = 0,
    n_genes: int = 18_000,
    stage: str = "final",
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Write a simulated `.h5ad` in the shape of the Ennis 2023 atlas, the same for the same arguments.

    `X` is size-factor normalised and logarithmic, counts are in `layers["counts"]`. Memory does
    not grow with the cells but for one byte of each in the largest sample.

    Parameters
    ----------
    stage
        One of `STAGES`: "first" has 24 labels in `celltype`, "final" also `celltype_final` and `tp`.
    progress
        Called with (cells done, cells in all, what is done).

    Raises
    ------
    InputError
        If the sizes or the stage are none that can be had, or the place cannot be written.
    DiskFull
        If there is no room. Nothing is left then.
    """
    if stage not in STAGES:
        msg = f'The atlas has no stage "{stage}".'
        raise InputError(msg, f"Choose one of: {', '.join(STAGES)}.")
    cohort = plan_stand_in(n_cells, seed=seed, n_genes=n_genes)
    columns = tuple(name for name in _COLUMNS if stage == "final" or name not in _ADDED_LATER)
    with _atlas_file(path, n_cells, cohort.genes, columns) as file:
        for counts, obs, names in _chunks(cohort):
            file.append(counts, obs, names)
            if progress is not None:
                progress(file.n_written, n_cells, "cells")
        file.finish(_about(n_cells, seed))


def _about(n_cells: int, seed: int) -> dict[str, Any]:
    source = (
        f"simulated by Faultline ({n_cells} cells, seed {seed}) in the composition of {CITATION}"
    )
    return ABOUT | {"name": "Simulated stand-in of the Ennis 2023 atlas", "source": source}


def _chunks(cohort: Cohort) -> Iterator[tuple[csr_matrix, dict[str, np.ndarray], list[str]]]:
    """Yield counts, columns of obs (codes of text columns) and names of cells."""
    from backend.data.stand_in.kernel import Programmes, draw_counts

    seed, n_done = cohort.seed, 0
    for number, sample in enumerate(cohort.samples):
        programmes = Programmes(cohort.profiles(sample))
        kinds = np.repeat(np.arange(len(KINDS), dtype=np.int8), sample.cells)
        np.random.default_rng([seed, 11, number]).shuffle(kinds)
        for start in range(0, len(kinds), _CELLS_PER_CHUNK):
            rng = np.random.default_rng([seed, 12, number, start])
            mine = kinds[start : start + _CELLS_PER_CHUNK]
            depth = _DEPTH * rng.lognormal(0, 0.4, len(mine))
            totals = np.clip(rng.poisson(depth), 1, _MOST_TRANSCRIPTS)
            between = rng.beta(1.4, 4.0, len(mine)).clip(0, 0.99)
            counts = draw_counts(programmes, mine, PARENTS[mine], between, totals, rng)
            names = [f"SIM-{n_done + place:07d}-{sample.origin.name}" for place in range(len(mine))]
            n_done += len(mine)
            yield counts, _obs(sample, mine, totals, rng), names


def _obs(
    sample: Sample, kinds: np.ndarray, totals: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    n, origin = len(kinds), sample.origin
    batches = list(dict.fromkeys(other.dataset for other in SAMPLES))
    words = {
        "dataset": origin.dataset,
        "sample": origin.name,
        "donor": origin.donor,
        "batch": str(batches.index(origin.dataset)),
        "tp": sample.tp,
    }
    obs = {name: np.full(n, _CATEGORIES[name].index(word)) for name, word in words.items()}
    known = _CATEGORIES["timepoint"]
    obs["timepoint"] = np.full(n, known.index(origin.timepoint) if origin.timepoint else -1)
    raw = np.array([_CATEGORIES["celltype"].index(kind.raw) for kind in KINDS])
    final = np.array([_CATEGORIES["celltype_final"].index(kind.final) for kind in KINDS])
    return obs | {
        "celltype": raw[kinds],
        "celltype_final": final[kinds],
        # Pooled size factors follow the depth of a cell closely, not exactly.
        "size_factors": totals / _DEPTH * rng.lognormal(0, 0.05, n),
        "doublet": np.zeros(n, dtype=bool),
        "dbl_score": rng.beta(2.0, 20.0, n),
    }


@contextmanager
def _atlas_file(
    path: str | Path, n_cells: int, genes: tuple[str, ...], columns: tuple[str, ...]
) -> Iterator[_AtlasWriter]:
    """Yield a writer to a file that is complete when the block ends well, absent otherwise."""
    import h5py

    with complete_or_absent(path) as draft:
        # Minutes of work end at once, not late, where there is no room for the least of it.
        room = _Room(Path(path))
        room.check(n_cells * _LEAST_BYTES_PER_VALUE * min(len(genes) // 3, _FEW_GENES_OF_CELL))
        with h5py.File(draft, "w") as file:
            yield _AtlasWriter(file, room, n_cells, genes, columns)


@dataclass(frozen=True, slots=True)
class _Room:
    """What is free where a file is written."""

    path: Path

    def check(self, n_bytes: int) -> None:
        """Refuse what there is no room for: HDF5 crashes when it closes a file on a full disk."""
        check_room(self.path.parent, n_bytes + _SPARE, f"`{self.path.name}`")


class _AtlasWriter:
    """Fill an open file in the layout of anndata 0.7."""

    def __init__(
        self,
        file: h5py.File,
        room: _Room,
        n_cells: int,
        genes: tuple[str, ...],
        columns: tuple[str, ...],
    ) -> None:
        self.n_cells = n_cells
        self.genes = genes
        self.columns = columns
        self.n_written = 0
        self._file = file
        self._room = room
        self._n_values = 0
        self._seen_in = np.zeros(len(genes), dtype=np.int64)
        # Open to the end: each time that one is closed, the chunk that is not full is packed anew.
        self._parts: dict[str, h5py.Dataset] = {}
        for name in _MATRICES:
            group = file.create_group(name)
            group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
            group.attrs["shape"] = np.array([self.n_cells, len(self.genes)], dtype=np.int64)
            for part, dtype in (("data", np.float32), ("indices", np.int32)):
                self._parts[f"{name}/{part}"] = group.create_dataset(
                    part, (0,), dtype, maxshape=(None,), chunks=(_VALUES_PER_CHUNK,), **_PACKED
                )
            self._create(f"{name}/indptr", self.n_cells + 1, np.int64)
        self._describe_obs()

    def _create(self, place: str, n: int, dtype: Any) -> h5py.Dataset:
        chunks = (min(n, _ROWS_PER_CHUNK),)
        part = self._file.create_dataset(place, (n,), dtype, chunks=chunks, **_PACKED)
        self._parts[place] = part
        return part

    def _describe_obs(self) -> None:
        import h5py

        text = h5py.string_dtype("utf-8")
        obs = self._file.create_group("obs")
        obs.attrs.update(
            {"encoding-type": "dataframe", "encoding-version": "0.1.0", "_index": "index"}
        )
        obs.attrs["column-order"] = np.array(self.columns, dtype=object)
        self._create("obs/index", self.n_cells, text)
        categories = obs.create_group("__categories")
        for name in self.columns:
            if name in _NUMBERS:
                self._create(f"obs/{name}", self.n_cells, _NUMBERS[name])
                continue
            words = categories.create_dataset(
                name, data=np.array(_CATEGORIES[name], dtype=object), dtype=text
            )
            words.attrs["ordered"] = np.False_
            # This layout leads from the codes to their words by a reference.
            self._create(f"obs/{name}", self.n_cells, np.int8).attrs["categories"] = words.ref

    def append(self, counts: csr_matrix, obs: dict[str, np.ndarray], names: list[str]) -> None:
        """Add cells; rows of `counts` are sorted by gene."""
        self._room.check(_BYTES_PER_VALUE * counts.nnz)
        start, end = self._n_values, self._n_values + counts.nnz
        first, last = self.n_written, self.n_written + len(names)
        of_cell = np.repeat(obs["size_factors"].astype(np.float32), np.diff(counts.indptr))
        values = {"X": np.log1p(counts.data / of_cell), "layers/counts": counts.data}
        for name in _MATRICES:
            for part, piece in (("data", values[name]), ("indices", counts.indices)):
                target = self._parts[f"{name}/{part}"]
                target.resize((end,))
                target[start:end] = piece
            row_ends = start + counts.indptr[1:].astype(np.int64)
            self._parts[f"{name}/indptr"][first + 1 : last + 1] = row_ends
        self._parts["obs/index"][first:last] = names
        for name in self.columns:
            self._parts[f"obs/{name}"][first:last] = obs[name]
        self._seen_in += np.bincount(counts.indices, minlength=len(self.genes))
        self._n_values, self.n_written = end, last

    def finish(self, about: dict[str, Any]) -> None:
        """Add the table of genes and what the file says of itself."""
        import h5py

        self._room.check(0)
        text = h5py.string_dtype("utf-8")
        var = self._file.create_group("var")
        var.attrs.update(
            {"encoding-type": "dataframe", "encoding-version": "0.1.0", "_index": "index"}
        )
        var.attrs["column-order"] = np.array(["n_cells"], dtype=object)
        var.create_dataset("index", data=np.array(self.genes, dtype=object), dtype=text)
        var.create_dataset("n_cells", data=self._seen_in)
        for name in ("obsm", "varm", "obsp", "varp"):
            self._file.create_group(name)
        marks = self._file.create_group("uns/faultline")
        for name in ABOUT_FIELDS:
            value = about.get(name)
            marks[name] = "" if value is None else value
