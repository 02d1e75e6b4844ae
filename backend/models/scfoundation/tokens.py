"""What scFoundation reads: expression values and read-depth tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from backend.errors import InputError
from backend.models.gene_panel import row_totals

if TYPE_CHECKING:
    import scipy.sparse as sp
    from torch import Tensor

    from backend.models.base import TokenBatch

__all__ = ["pack", "prepare_values", "target_depth"]


def target_depth(resolution: str, source_depth: np.ndarray) -> np.ndarray:
    """Return the target depth T for source depths S (both log10 of counts).

    `t4` is T = 4, `f2` is T = S + log10(2) and `a1` is T = S + 1.
    """
    kind, number = resolution[:1], resolution[1:]
    try:
        value = float(number)
    except ValueError:
        value = np.nan
    if kind == "t" and np.isfinite(value):
        return np.full_like(source_depth, value)
    if kind == "f" and value > 0:
        return source_depth + np.log10(value)
    if kind == "a" and np.isfinite(value):
        return source_depth + value
    msg = f'Unknown resolution "{resolution}".'
    raise InputError(msg, "Write t4 (10^4 counts), f1 (as deep as the cell) or a1 (ten times).")


def prepare_values(
    aligned: sp.csr_matrix, *, resolution: str = "t4"
) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Return ln(1 + counts per 10,000) in float32, and the depths T and S in float64.

    Parameters
    ----------
    resolution
        See `target_depth`.

    Notes
    -----
    S is the log10 of a cell's counts, so it is not positive for cells with at most one.
    """
    values = aligned.astype(np.float64)
    sums = row_totals(aligned)
    values.data = np.log1p(values.data / np.repeat(sums, np.diff(values.indptr)) * 1e4)
    with np.errstate(divide="ignore"):
        depth = np.log10(sums)
    return values.astype(np.float32), target_depth(resolution, depth), depth


def pack(
    cells: TokenBatch,
    *,
    with_depth: bool,
    n_genes: int,
    pad_value: float,
    pad_position: int,
    max_tokens: int | None = None,
) -> dict[str, Tensor]:
    """Pad the tokens of a batch on the right.

    Tokens keep the order of the panel; T and S come last and are left out, as in the reference,
    where they are not positive. A cell without any token gets one that says "none".
    """
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    for i, (ids, values) in enumerate(zip(cells.ids, cells.values, strict=True)):
        is_token = values > 0
        ids, values = ids[is_token], values[is_token]
        if max_tokens is not None and len(ids) > max_tokens:
            kept = np.sort(np.argsort(-values, kind="stable")[:max_tokens])
            ids, values = ids[kept], values[kept]
        if with_depth:
            depths = np.array([cells.extra["target_depth"][i], cells.extra["source_depth"][i]])
            is_token = depths > 0
            positions = np.array([n_genes, n_genes + 1])
            ids = np.concatenate([ids, positions[is_token]])
            values = np.concatenate([values, depths[is_token]])
        if len(ids) == 0:
            ids, values = np.array([n_genes + 2]), np.array([pad_value])
        rows.append((ids, values))
    lengths = np.array([len(ids) for ids, _ in rows])
    width = int(lengths.max())
    gene_ids = np.full((len(rows), width), pad_position, np.int64)
    packed = np.full((len(rows), width), pad_value, np.float32)
    for i, (ids, values) in enumerate(rows):
        gene_ids[i, : len(ids)] = ids
        packed[i, : len(ids)] = values
    return {
        "values": torch.from_numpy(packed),
        "gene_ids": torch.from_numpy(gene_ids),
        "padding": torch.from_numpy(np.arange(width) >= lengths[:, None]),
    }
