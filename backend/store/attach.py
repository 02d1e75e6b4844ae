"""Counts by gene for a dataset whose results hold none, from the file that they were made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.data.dataset import describe_chunks
from backend.data.expression import FOLDER, ExpressionWriter, open_expression
from backend.data.h5ad import open_dataset
from backend.errors import InputError
from backend.files import published
from backend.store.bundle import read_dataset
from backend.store.roots import check_id
from backend.types import ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from anndata import AnnData

    from backend.data.expression import Expression
    from backend.data.roles import Roles

__all__ = ["attach_expression", "find_expression"]

_CHUNK: Final = 4096
_OTHER_FILE: Final = "Attach the file that the results were made of."


def find_expression(roots: Sequence[Path], dataset_id: str) -> Expression | None:
    """Return the counts by gene of a dataset below any of the folders, or None."""
    name = check_id(dataset_id, "Dataset")
    for root in roots:
        found = open_expression(root / "datasets" / name)
        if found is not None:
            return found
    return None


def attach_expression(
    path: Path,
    dataset_id: str,
    *,
    roots: Sequence[Path],
    home: Path,
    roles: Roles | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> int:
    """Write the counts by gene of a known dataset below `home`; return its number of cells.

    The file must hold the cells of the dataset in their order, with its genes and counts where the
    dataset says what these were.

    Parameters
    ----------
    path
        The `.h5ad`.
    roots
        Folders of bundles in which the dataset is looked for.
    home
        Folder of bundles that gets `datasets/<id>/expression/`.

    Raises
    ------
    InputError
        If there is no such dataset, or the file holds other cells or counts.
    """
    name = dataset_id
    values, ids = _known(roots, name)
    title = f'"{path.name}"'
    with (
        open_dataset(path, roles) as dataset,
        published(home / "datasets" / name / FOLDER, what="the counts by gene") as folder,
    ):
        obs = dataset.obs()
        writer = ExpressionWriter(folder, dataset.found.genes.symbols)
        seen: list[np.ndarray] = []

        def pieces() -> Iterator[AnnData]:
            for start in range(0, dataset.n_cells, _CHUNK):
                progress(start, dataset.n_cells, "cells")
                piece = dataset.cells(start, start + _CHUNK, obs)
                writer.add(piece.X)
                seen.append(piece.obs_names.to_numpy(dtype=object))
                yield piece

        found = describe_chunks(pieces())
        writer.close()
        _check_cells(title, np.concatenate(seen), ids, values["name"])
        for part in ("genes", "counts"):
            if found.hashes[part] != values["hashes"].get(part, found.hashes[part]):
                msg = f'{title} has the cells of "{values["name"]}" with other {part}.'
                raise InputError(msg, _OTHER_FILE)
    return len(ids)


def _check_cells(title: str, found: np.ndarray, ids: np.ndarray, name: str) -> None:
    if len(found) != len(ids) or set(found) != set(ids):
        n_here = int(pd.Index(ids).isin(found).sum())
        msg = f'{title} has {len(found):,} cells; {n_here:,} of the {len(ids):,} of "{name}" are among them.'
        raise InputError(msg, _OTHER_FILE)
    if (found != ids).any():
        msg = f'{title} has the cells of "{name}" in another order.'
        raise InputError(msg, _OTHER_FILE)


def _known(roots: Sequence[Path], name: str) -> tuple[dict[str, Any], np.ndarray]:
    """Return what is known of a dataset, and the ids of its cells."""
    for root in roots if ID.fullmatch(name) else ():
        if (root / "datasets" / name / "dataset.json").is_file():
            values, cells = read_dataset(root / "datasets" / name)
            return values, cells["cell_id"].to_numpy(dtype=object)
    msg = f'There is no dataset "{name[:40]}" here.'
    raise InputError(msg, "`python -m backend runs list` names the datasets that have results.")
