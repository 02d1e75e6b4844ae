"""What a fold lacks at a timepoint is listed, type by type."""

from __future__ import annotations

import pandas as pd

from backend.splits import make_split
from backend.splits.learnable import missing_strata


def cells_of(*rows):
    frame = pd.DataFrame(rows, columns=["donor", "timepoint", "cell_type_fine", "n"])
    frame = frame.loc[frame.index.repeat(frame["n"])].drop(columns="n")
    frame.index = [f"cell{i}" for i in range(len(frame))]
    return frame


def test_types_are_named_with_their_timepoint_and_a_whole_timepoint_as_one():
    """Only one donor has CLP when healthy; relapse has two donors for four folds."""
    cells = cells_of(
        ("H1", "Healthy", "CLP", 5), ("H1", "Healthy", "B", 5), ("H2", "Healthy", "B", 5),
        ("H3", "Healthy", "B", 5), ("H4", "Healthy", "B", 5),
        ("P1", "Relapse", "B", 5), ("P1", "Relapse", "CLP", 5), ("P2", "Relapse", "B", 5),
        ("P2", "Relapse", "CLP", 5),
    )  # fmt: skip
    split = make_split(cells, "donor", dataset_id="0" * 16, folds=4, budget="full")
    said = missing_strata(split, cells)
    fold_of = {
        donor: int(split.test_fold[(cells["donor"] == donor).to_numpy()][0])
        for donor in ("H1", "P1", "P2")
    }
    for fold in range(4):
        parts = [] if fold == fold_of["H1"] else ["CLP (Healthy)"]
        parts += [] if fold in (fold_of["P1"], fold_of["P2"]) else ["any type (Relapse)"]
        tested = f"tests no cell of {'; '.join(parts)}" if parts else ""
        trained = "trains on no cell of CLP (Healthy)" if fold == fold_of["H1"] else ""
        text = ", and ".join(filter(None, (tested, trained)))
        assert [one for one in said if f"fold {fold}:" in one] == (
            [f"donor, fold {fold}: {text}."] if text else []
        )


def test_cells_without_a_timepoint_are_listed_as_such_and_unlabelled_ones_are_not():
    cells = cells_of(
        ("A", None, "B", 6), ("B", None, "B", 6), ("B", None, "T", 6), ("C", None, None, 6)
    )
    split = make_split(cells, "donor", dataset_id="0" * 16, folds=3, budget="full")
    fold = int(split.test_fold[(cells["donor"] == "B").to_numpy()][0])
    said = missing_strata(split, cells)
    assert f"donor, fold {fold}: trains on no cell of T (no timepoint)." in said
    assert not any("no label" in text for text in said)
