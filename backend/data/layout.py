"""Bring the obs columns of any file into the layout of the data contract."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from backend.data.categories import as_text, constant, fill, map_words
from backend.data.labels import (
    is_malignant_label,
    normalise_genotype,
    normalise_label_source,
    to_lineage,
)
from backend.data.names import check_names
from backend.data.problems import some
from backend.data.profiles import profile_named
from backend.data.roles import Roles, map_timepoint
from backend.data.vocabularies import names_no_type
from backend.errors import LabelError
from backend.types import GENOTYPES, LABEL_SOURCES, TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy.sparse import csr_matrix

__all__ = ["UNKNOWN_DONOR", "add_totals", "standard_obs"]

UNKNOWN_DONOR: Final = "unknown"
_TRUE: Final = {"true", "1", "yes", "malignant", "tumor", "tumour"}
_FALSE: Final = {"false", "0", "no", "normal", "non-malignant", "nonmalignant", "benign"}


def standard_obs(
    read: Callable[[str], pd.Series], roles: Roles, n_cells: int, notes: list[str]
) -> pd.DataFrame:
    """Return the role columns in the order of the contract, without row names.

    Parameters
    ----------
    read
        Returns a column of `obs` by name.
    roles
        Column of each role.
    n_cells
        Rows of every column.
    notes
        Gets a sentence for everything that was lost.
    """
    profile = profile_named(roles.profile)
    if profile is not None and profile.form is not None:
        read, roles = profile.form.translate(read, roles, notes)
    columns = roles.columns()

    def text(role: str) -> pd.Categorical:
        if role not in columns:
            return constant(None, n_cells)
        values = as_text(read(columns[role]))
        if role == "cell_type":
            values = _named_types(values, notes)
        check_names(role, list(values.categories))
        return values

    fine = text("cell_type")
    timepoint = _timepoints(text("timepoint"), roles, notes)
    donor = fill(text("donor"), UNKNOWN_DONOR)
    if "donor" in columns and (n_unknown := int((donor == UNKNOWN_DONOR).sum())):
        notes.append(f'{n_unknown:,} cells without donor count as donor "{UNKNOWN_DONOR}".')
    sample = text("sample") if "sample" in columns else donor
    obs = pd.DataFrame(
        {
            "cell_type_fine": fine,
            "cell_type_lineage": map_words(fine, to_lineage),
            "timepoint": timepoint,
            "donor": donor,
            "study": text("study"),
            "sample": fill(sample, "unknown"),
            "day": _days(read, columns, n_cells),
            "label_source": _label_sources(text("label_source"), notes),
            "genotype": map_words(fill(text("genotype"), "none"), normalise_genotype, GENOTYPES),
            "is_malignant": _malignancy(text("is_malignant"), fine, timepoint, columns),
        }
    )
    if "sort" in columns:
        obs["sort"] = text("sort")
    return obs


def add_totals(obs: pd.DataFrame, counts: csr_matrix) -> pd.DataFrame:
    """Return `obs` with counts and detected genes of each cell; `sort` stays last."""
    totals = {
        "n_counts": np.asarray(counts.sum(axis=1)).ravel().astype(np.float32),
        "n_genes": np.diff(counts.indptr).astype(np.int32),
    }
    obs = obs.assign(**totals)
    if "sort" in obs:
        obs["sort"] = obs.pop("sort")
    return obs


def _named_types(values: pd.Categorical, notes: list[str]) -> pd.Categorical:
    """Drop labels that name no type, and say what else a reader must know of the labels."""
    words = [name for name in values.categories if names_no_type(name)]
    if words:
        n = int(np.isin(values.codes, values.categories.get_indexer(words)).sum())
        notes.append(f"{n:,} cells have a label that names no type ({some(words)}): no label.")
        values = map_words(values, lambda name: None if name in words else name)
    names = list(values.categories)
    if names and all(re.fullmatch(r"-?\d+(\.0+)?", name) for name in names):
        notes.append(
            f"All {len(names)} labels are numbers ({some(names, 3)}): if they are clusters, a model "
            "learns clusters; give the column that names cell types."
        )
    return values


def _timepoints(values: pd.Categorical, roles: Roles, notes: list[str]) -> pd.Categorical:
    unknown = [v for v in values.categories if map_timepoint(v, roles.timepoints) is None]
    if unknown:
        notes.append(
            f"Timepoints that are not known count as missing: {some(unknown)}. "
            f"Known are {', '.join(TIMEPOINTS)}."
        )
    mapped = map_words(values, lambda v: map_timepoint(v, roles.timepoints), TIMEPOINTS)
    return mapped.as_ordered()


def _label_sources(values: pd.Categorical, notes: list[str]) -> pd.Categorical:
    unknown = []

    def source(value: str) -> str:
        try:
            return normalise_label_source(value)
        except LabelError:
            unknown.append(value)
            return "unknown"

    mapped = map_words(fill(values, "unknown"), source, LABEL_SOURCES)
    if unknown:
        notes.append(f'Label sources that are not known count as "unknown": {some(unknown)}.')
    return mapped


def _days(
    read: Callable[[str], pd.Series], columns: dict[str, str], n_cells: int
) -> pd.arrays.IntegerArray:
    if "day" not in columns:
        return pd.arrays.IntegerArray(
            np.zeros(n_cells, dtype=np.int32), np.ones(n_cells, dtype=bool)
        )
    values = read(columns["day"])
    if isinstance(values.dtype, pd.CategoricalDtype):
        days = {}
        for name in values.cat.categories:
            match = re.fullmatch(r"\s*[Dd]?(?:ay)?\s*(-?\d{1,6})(?:\.0+)?\s*", str(name))
            days[name] = float(match[1]) if match else np.nan
        numbers = values.map(days).astype(float).to_numpy()
    else:
        numbers = values.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    is_day = np.isfinite(numbers) & (numbers == np.rint(numbers)) & (np.abs(numbers) < 1e6)
    return pd.arrays.IntegerArray(np.where(is_day, numbers, 0).astype(np.int32), ~is_day)


def _malignancy(
    values: pd.Categorical,
    fine: pd.Categorical,
    timepoint: pd.Categorical,
    columns: dict[str, str],
) -> pd.arrays.BooleanArray:
    """Read the column, or, without one, say what labels (`X-like`) and healthy donors imply."""
    if "is_malignant" in columns:
        words = np.array([name.casefold() for name in values.categories] + [""], dtype=object)
        is_true = np.isin(words, list(_TRUE))[values.codes]
        is_false = np.isin(words, list(_FALSE))[values.codes]
    else:
        marks = [is_malignant_label(name) for name in fine.categories] + [False]
        is_true = np.array(marks, dtype=bool)[fine.codes]
        is_false = np.asarray(timepoint == "Healthy") & ~is_true
    return pd.arrays.BooleanArray(is_true, ~(is_true | is_false))
