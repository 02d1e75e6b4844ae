"""Draw a subset with stated shares of each timepoint (or another role), donors kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backend.data.dataset import describe_chunks
from backend.data.h5ad import open_dataset, read_chunks
from backend.data.problems import some
from backend.data.simulate import whole_parts
from backend.data.writer import H5adWriter, stack_frames
from backend.errors import InputError
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import pandas as pd
    from anndata import AnnData

    from backend.data.dataset import DatasetInfo
    from backend.data.roles import Roles

__all__ = [
    "SUBSET_ROLES",
    "SubsetReport",
    "check_shares",
    "choose_cells",
    "describe_subset",
    "parse_shares",
    "write_subset",
]

SUBSET_ROLES: Final = {
    "timepoint": "timepoint",
    "cell_type": "cell_type_fine",
    "lineage": "cell_type_lineage",
    "donor": "donor",
    "study": "study",
    "sample": "sample",
}
"""What shares can be stated of → the column of the data contract."""

_TOLERANCE: Final = 0.02  # rounded percentages: .25 + .30 + .22 + .22 = .99
_DERIVED: Final = ("cell_type_lineage", "n_counts", "n_genes")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetReport:
    """What `write_subset` drew."""

    n_cells: int
    n_donors: int
    by: str
    cells: Mapping[str, int]
    parent: str
    parent_cells: int
    seed: int
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        shares = {name: round(n / self.n_cells, 6) for name, n in self.cells.items()}
        return asdict(self) | {"shares": shares, "notes": list(self.notes)}


def parse_shares(text: str) -> dict[str, float]:
    """Read `Healthy=.25,Diagnosis=.30,…`; the shares must come to 1 within rounding.

    Raises
    ------
    InputError
        If an entry is no share, is named twice, or the sum is not 1.
    """
    shares: dict[str, float] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = (part.strip() for part in entry.rpartition("="))
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not equals or not name or not 0 < share <= 1 or name in shares:
            msg = f'"{entry}" is not a share, or names one twice.'
            raise InputError(msg, "Write shares like Healthy=.25,Diagnosis=.30,Relapse=.45.")
        shares[name] = share
    check_shares(shares)
    return shares


def check_shares(shares: Mapping[str, float]) -> None:
    """Raise `InputError` unless the shares come to 1 within rounding."""
    if abs(sum(shares.values()) - 1) > _TOLERANCE + 1e-9:
        msg = f"The shares come to {sum(shares.values()):.3g}, not to 1."
        raise InputError(msg, "Write shares that come to 1, such as Healthy=.4,Relapse=.6.")


def choose_cells(
    obs: pd.DataFrame,
    shares: Mapping[str, float],
    *,
    by: str = "timepoint",
    n_cells: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Choose rows so that the shares are met to the cell.

    Within each part every donor keeps its share and at least one cell, and within a donor every
    cell type keeps its share, both as far as whole cells allow.

    Parameters
    ----------
    obs
        In the layout of the data contract.
    shares
        Part by value; scaled to come to exactly 1.
    by
        A key of `SUBSET_ROLES`.
    n_cells
        Size of the subset; the largest possible one when None.
    seed
        Chooses the cells.

    Returns
    -------
    Sorted row numbers.

    Raises
    ------
    InputError
        If a value does not occur or has too few cells; the largest possible size is named.
    """
    if by not in SUBSET_ROLES:
        msg = f'Shares of "{by}" cannot be stated.'
        raise InputError(msg, f"Choose one of: {', '.join(SUBSET_ROLES)}.")
    if not shares:
        msg = "No shares were given."
        raise InputError(msg, "Write shares like Healthy=.25,Diagnosis=.30,Relapse=.45.")
    values = obs[SUBSET_ROLES[by]].astype(object).to_numpy()
    available = {name: np.flatnonzero(values == name) for name in shares}
    absent = [name for name, rows in available.items() if not len(rows)]
    if absent:
        present = sorted({str(value) for value in values if isinstance(value, str)})
        msg = f"No cell has the {by} {some(absent)}. Found: {some(present) or 'none'}."
        raise InputError(msg, "State shares of values that occur.")
    names = list(shares)
    parts = np.array([shares[name] for name in names])
    sizes = np.array([len(available[name]) for name in names])
    most = _largest(parts, sizes)
    n_cells = most if n_cells is None else n_cells
    wanted = whole_parts(parts, n_cells) if n_cells > 0 else np.zeros(len(parts), dtype=int)
    short = [
        f"{name} has {size:,} of {need:,}"
        for name, size, need in zip(names, sizes, wanted, strict=True)
        if need > size
    ]
    if short or n_cells < len(names):
        why = f": {some(short)} cells" if short else ""
        msg = f"A subset of {n_cells:,} cells with these shares cannot be drawn{why}."
        raise InputError(msg, f"Ask for {len(names)} to {most:,} cells, or for other shares.")
    rng = np.random.default_rng(seed)
    chosen = [
        _draw(obs, available[name], int(need), by, name, rng)
        for name, need in zip(names, wanted, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _largest(parts: np.ndarray, sizes: np.ndarray) -> int:
    """Return the largest total whose parts are all available."""
    total = int((sizes / (parts / parts.sum())).min()) + len(parts)
    while total > 0 and (whole_parts(parts, total) > sizes).any():
        total -= 1
    return total


def _draw(
    obs: pd.DataFrame,
    rows: np.ndarray,
    n: int,
    by: str,
    name: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw `n` of some rows, by donor and, within a donor, by cell type."""
    donors = obs["donor"].cat.codes.to_numpy()[rows]
    types = obs["cell_type_fine"].cat.codes.to_numpy()[rows]
    present, sizes = np.unique(donors, return_counts=True)
    if n < len(present):
        msg = f"{n:,} cells of {by} {name} are too few for its {len(present)} donors."
        raise InputError(msg, "Ask for more cells, so that every donor keeps at least one.")
    quotas = 1 + _at_most(sizes - 1, n - len(present))
    kept = []
    for donor, quota in zip(present, quotas, strict=True):
        mine = rows[donors == donor]
        kinds, counts = np.unique(types[donors == donor], return_counts=True)
        for kind, take in zip(kinds, _at_most(counts, int(quota)), strict=True):
            pool = mine[types[donors == donor] == kind]
            kept.append(rng.choice(pool, size=int(take), replace=False))
    return np.concatenate(kept)


def _at_most(sizes: np.ndarray, total: int) -> np.ndarray:
    """Split `total` in proportion to `sizes`, never more than there are."""
    parts = np.minimum(whole_parts(sizes, total), sizes) if total else np.zeros_like(sizes)
    for place in np.argsort(parts - sizes, kind="stable"):
        missing = total - int(parts.sum())
        parts[place] += min(missing, int(sizes[place] - parts[place]))
    return parts


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """Chosen cells of a file that was only looked at.

    obs   : the role columns of all its cells
    rows  : sorted row numbers of the chosen ones
    about : what the file says of itself
    notes : what a reader of the file must know, and how many cells were left out
    """

    source: Path
    obs: pd.DataFrame
    rows: np.ndarray
    about: Mapping[str, Any]
    notes: tuple[str, ...]
    roles: Roles | None
    any_genes: bool

    def chunks(
        self, what: str, progress: Callable[[int, int, str], None] | None
    ) -> Iterator[AnnData]:
        """Read all cells of the file in pieces."""
        done = 0
        for chunk in read_chunks(self.source, roles=self.roles, any_genes=self.any_genes):
            yield chunk
            done += chunk.n_obs
            if progress is not None:
                progress(done, len(self.obs), what)

    def chosen(self, chunks: Iterable[AnnData]) -> Iterator[AnnData]:
        """Give the chosen cells of each piece."""
        is_chosen = np.zeros(len(self.obs), dtype=bool)
        is_chosen[self.rows] = True
        start = 0
        for chunk in chunks:
            mine = np.flatnonzero(is_chosen[start : start + chunk.n_obs])
            start += chunk.n_obs
            if len(mine):
                yield chunk[mine].copy()


def _drawn(
    source: Path,
    shares: Mapping[str, float],
    *,
    by: str,
    n_cells: int | None,
    seed: int,
    roles: Roles | None,
    any_genes: bool,
) -> _Drawn:
    purpose = "evaluate" if by in ("cell_type", "lineage") else "predict"
    with open_dataset(source, roles, purpose=purpose, any_genes=any_genes) as dataset:
        obs = dataset.obs()
        found, notes = dataset.found, list(dataset.notes)
    rows = choose_cells(obs, shares, by=by, n_cells=n_cells, seed=seed)
    dropped = len(obs) - int(obs[SUBSET_ROLES[by]].isin(list(shares)).sum())
    if dropped:
        notes.append(f"{dropped:,} cells of another or no {by} were left out.")
    about = dict(found.about)
    about["name"] = f"{about.get('name') or 'unnamed'}, balanced by {by}"
    return _Drawn(source, obs, rows, about, tuple(notes), roles, any_genes)


def describe_subset(
    source: str | Path,
    shares: Mapping[str, float],
    *,
    by: str = "timepoint",
    n_cells: int | None = None,
    seed: int = 0,
    roles: Roles | None = None,
    any_genes: bool = False,
) -> tuple[pd.DataFrame, DatasetInfo, tuple[str, ...]]:
    """Say what `write_subset` would write, without writing it.

    Returns
    -------
    cells
        Role columns of the chosen cells, indexed by cell id.
    info
        Facts of the subset but its parent; the dataset id is that of the file.
    notes
        What a reader of the source must know.

    Raises
    ------
    InputError
        If the source cannot be used or the shares cannot be met.
    """
    drawn = _drawn(
        Path(source), shares, by=by, n_cells=n_cells, seed=seed, roles=roles, any_genes=any_genes
    )
    cells: list[pd.DataFrame] = []

    def chosen() -> Iterator[AnnData]:
        for part in drawn.chosen(drawn.chunks("reading", None)):
            part.uns["faultline"] = dict(drawn.about)
            cells.append(part.obs)
            yield part

    info = describe_chunks(chosen())
    return stack_frames(cells), info, drawn.notes


def write_subset(
    source: str | Path,
    out: str | Path,
    shares: Mapping[str, float],
    *,
    by: str = "timepoint",
    n_cells: int | None = None,
    seed: int = 0,
    roles: Roles | None = None,
    any_genes: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> SubsetReport:
    """Write a subset of a dataset to a file of its own; its parent's id stands in it.

    Memory is that of one chunk and the role columns. `progress` is called with
    (cells done, cells in all, what is done).

    Raises
    ------
    InputError
        If the source cannot be used or the shares cannot be met. Nothing is written then.
    """
    source, out = Path(source), Path(out)
    if out.exists() and out.samefile(source):
        msg = f'"{out.name}" is the source itself.'
        raise InputError(msg, "Write the subset to another file.")
    drawn = _drawn(
        source, shares, by=by, n_cells=n_cells, seed=seed, roles=roles, any_genes=any_genes
    )
    parent = describe_chunks(drawn.chunks("reading", progress))
    about = dict(drawn.about) | {"parent": parent.dataset_id}
    var = next(read_chunks(source, size=1, roles=roles, any_genes=any_genes)).var
    with H5adWriter(out, var, about) as file:
        for part in drawn.chosen(drawn.chunks("writing", progress)):
            file.append(part.X, part.obs.drop(columns=list(_DERIVED)))
    chosen = drawn.obs.iloc[drawn.rows]
    counts = chosen[SUBSET_ROLES[by]].astype(str).value_counts()
    order = TIMEPOINTS if by == "timepoint" else tuple(shares)
    return SubsetReport(
        n_cells=len(drawn.rows),
        n_donors=int(chosen["donor"].nunique()),
        by=by,
        cells={name: int(counts[name]) for name in order if name in counts},
        parent=parent.dataset_id,
        parent_cells=len(drawn.obs),
        seed=seed,
        notes=drawn.notes,
    )
