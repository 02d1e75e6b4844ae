"""Genes of failures, kept by scope, choice and the file of counts."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from app.cache.cells import cells_on_map, columns_of
from app.cache.store import apart, store_version
from backend.evaluation.genes.failures import GenesOfFailures, failed_pairs, genes_of_failures
from backend.store.attach import find_expression
from backend.store.cache import default_roots
from backend.store.roots import is_url

if TYPE_CHECKING:
    import pandas as pd

    from backend.data.expression import Expression
    from backend.types import Scope

__all__ = ["expression_of", "pairs_of_failures", "separating_genes"]


def expression_of(scope: Scope) -> Expression | None:
    """Return the counts by gene of the scope's dataset, or None where none are kept."""
    seen = ("public", scope.owner)
    roots = [Path(root) for owner, root in default_roots() if owner in seen and not is_url(root)]
    return find_expression(roots, scope.dataset_id)


def _mask(chosen: np.ndarray | None, n_cells: int) -> np.ndarray | None:
    if chosen is None:
        return None
    mask = np.zeros(n_cells, dtype=bool)
    mask[chosen] = True
    return mask


def _digest(chosen: np.ndarray | None) -> str:
    return "" if chosen is None else blake2b(chosen.tobytes(), digest_size=16).hexdigest()


# Keyed by the hash of all bytes of the cells: of large arrays only a sample would be.
@apart(st.cache_data, max_entries=64, show_spinner=False)
def _pairs(
    version: str, scope: Scope, configuration: str, digest: str, _chosen: np.ndarray | None
) -> pd.DataFrame:
    cells = cells_on_map(scope, configuration)
    return failed_pairs(cells, cells.in_scope(scope), _mask(_chosen, len(cells)))


def pairs_of_failures(
    scope: Scope, configuration: str, chosen: np.ndarray | None = None
) -> pd.DataFrame:
    """Return the pairs of label and wrong call of a model among some cells, most cells first."""
    return _pairs(store_version(), scope, configuration, _digest(chosen), chosen)


@apart(st.cache_data, max_entries=64, show_spinner="Comparing genes over donors …")
def _separating(
    version: str,
    scope: Scope,
    configuration: str,
    counts: str,
    digest: str,
    _chosen: np.ndarray | None,
    **choice: str | bool,
) -> GenesOfFailures:
    cells = cells_on_map(scope, configuration)
    expression = expression_of(scope)
    assert expression is not None
    return genes_of_failures(
        cells, columns_of(scope), cells.in_scope(scope), expression,
        chosen=_mask(_chosen, len(cells)), **choice,  # type: ignore[arg-type]
    )  # fmt: skip


def separating_genes(
    scope: Scope,
    configuration: str,
    expression: Expression,
    *,
    label: str,
    predicted: str,
    against: str,
    adjust_for_depth: bool,
    chosen: np.ndarray | None = None,
) -> GenesOfFailures:
    """Return what separates the failures of one label and one call of a model.

    Parameters
    ----------
    chosen
        Values of `cell_index` that failures come from; None: all.
    """
    return _separating(
        store_version(), scope, configuration, expression.sha256, _digest(chosen), chosen,
        label=label, predicted=predicted, against=against, adjust_for_depth=adjust_for_depth,
    )  # fmt: skip
