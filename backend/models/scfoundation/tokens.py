"""What scFoundation reads: expression values, read-depth tokens, and its nested weight file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from backend.errors import InputError
from backend.models.gene_panel import row_totals
from backend.models.scfoundation.network import ScFoundationSizes

if TYPE_CHECKING:
    import scipy.sparse as sp

    from backend.models.base import TokenBatch

__all__ = ["pack", "prepare_values", "read_entry", "target_depth"]

ARCHITECTURE: Final = "mae_autobin"
_LAYOUT_HINT: Final = (
    "Use models.ckpt of the authors: parts gene, cell and rde, each with config and state_dict."
)


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
    aligned: sp.csr_matrix,
    *,
    input_type: str = "singlecell",
    pre_normalized: str = "F",
    resolution: str = "t4",
    totals: np.ndarray | None = None,
) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Turn aligned values into the network's: (values, T, S), depths per cell in float64.

    Parameters
    ----------
    input_type
        "singlecell" or "bulk".
    pre_normalized
        "F": values are raw counts. "T": values are ln(1 + counts per 10,000) already; S is then
        the log10 of *their* sum, as in the reference, not of the depth. "A": like "T", with the
        raw depth of each cell in `totals`.
    resolution
        See `target_depth`; single cells only. Bulk samples have T = S.

    Notes
    -----
    S is not finite or not positive for cells with at most one count: those have no embedding.
    """
    known = {"singlecell": ("F", "T", "A"), "bulk": ("F", "T")}
    if pre_normalized not in known.get(input_type, ()):
        msg = f'There is no input "{input_type}" with pre_normalized "{pre_normalized}".'
        raise InputError(msg, "Choose singlecell with F, T or A, or bulk with F or T.")
    values = aligned.astype(np.float64)
    sums = row_totals(aligned)
    if pre_normalized == "F":
        target = 1e4 if input_type == "singlecell" else np.median(sums[sums > 0])
        per_value = np.repeat(sums, np.diff(values.indptr))
        values.data = np.log1p(values.data / per_value * target)
    if input_type == "bulk":
        depth = row_totals(values)
        if pre_normalized == "F":
            depth = _log10(depth)
        return values.astype(np.float32), depth, depth
    if pre_normalized == "A":
        if totals is None:
            msg = 'Values are pre-normalised ("A") but the totals of the cells are missing.'
            raise InputError(msg, "Give the raw count of each cell.")
        sums = np.asarray(totals, np.float64)
    depth = _log10(sums)
    return values.astype(np.float32), target_depth(resolution, depth), depth


def _log10(totals: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log10(totals)


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


def read_entry(file: Any, entry: str, name: str) -> tuple[ScFoundationSizes, dict[str, Tensor]]:
    """Return sizes and tensors of one of the weight sets in the authors' file.

    Parameters
    ----------
    file
        What the file holds: {entry: {"config": …, "state_dict": …}}.
    entry
        "gene", "cell" or "rde".
    name
        Of the file, for messages.

    Raises
    ------
    InputError
        If the nesting, the architecture or the configuration is another.
    """
    part = _step(file, entry, name)
    tensors = _step(part, "state_dict", name)
    config = _step(part, "config", name)
    kind = _step(config, "model", name)
    if kind != ARCHITECTURE:
        msg = f'`{name}` holds the architecture "{kind}", not "{ARCHITECTURE}".'
        raise InputError(msg, _LAYOUT_HINT)
    # The data's part of the configuration wins, as in the authors' loader.
    values = _step(_step(config, "model_config", name), kind, name) | _step(
        _step(config, "dataset_config", name), "rnaseq", name
    )
    encoder, decoder = _step(values, "encoder", name), _step(values, "decoder", name)
    for part_name, part, expected in (
        ("encoder", encoder, "transformer"),
        ("decoder", decoder, "performer"),
    ):
        if (found := _step(part, "module_type", name)) != expected:
            msg = f'The {part_name} in `{name}` is a "{found}", not a "{expected}".'
            raise InputError(msg, _LAYOUT_HINT)
    sizes = ScFoundationSizes(
        dim=_step(encoder, "hidden_dim", name),
        depth=_step(encoder, "depth", name),
        heads=_step(encoder, "heads", name),
        n_bins=_step(values, "bin_num", name),
        bin_alpha=_step(values, "bin_alpha", name),
        pad_token_id=_step(values, "pad_token_id", name),
        mask_token_id=_step(values, "mask_token_id", name),
        decoder_dim=_step(decoder, "hidden_dim", name),
        decoder_depth=_step(decoder, "depth", name),
        decoder_heads=_step(decoder, "heads", name),
        decoder_dim_head=_step(decoder, "dim_head", name),
    )
    if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        msg = f'"state_dict" of "{entry}" in `{name}` does not map names to tensors.'
        raise InputError(msg, _LAYOUT_HINT)
    return sizes, {key.removeprefix("model."): tensor for key, tensor in tensors.items()}


def _step(value: Any, key: str, name: str) -> Any:
    """Return value[key] of a nested file, or say what is there instead."""
    if isinstance(value, dict) and key in value:
        return value[key]
    found = type(value).__name__
    if isinstance(value, dict):
        found = ", ".join(sorted(map(str, value))[:5]) or "nothing"
    msg = f'`{name}` has no part "{key}" where it is expected. Found: {found}.'
    raise InputError(msg, _LAYOUT_HINT)
