"""Every query keeps owners apart, and its counts are those of a count by hand."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.data.labels import to_lineage
from backend.data.profiles import PROFILES
from backend.errors import StoreError
from backend.store.bundle import (
    list_runs,
    predictions_frame,
    read_predictions,
    read_run,
    write_dataset,
    write_run,
)
from backend.store.cache import Store, query_names
from tests.backend.store import builders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERIES = builders.series()
ASKED = {
    "dataset_id": builders.DATASET,
    "label_level": "lineage",
    "series_ids": [SERIES.series_id],
    "series_id": SERIES.series_id,
}


def ask(store: Store, name: str, **parameters: Any) -> pd.DataFrame:
    """Run a query with the parameters among `ASKED` that it takes."""
    sql = (files("backend.store") / "queries" / f"{name}.sql").read_text()
    needed = {key: value for key, value in ASKED.items() if re.search(rf"\${key}\b", sql)}
    return store.query(name, **(needed | parameters))


@pytest.mark.parametrize("name", query_names())
def test_query_filters_by_owner_and_says_what_it_returns(name: str) -> None:
    sql = (files("backend.store") / "queries" / f"{name}.sql").read_text()
    body = "\n".join(line for line in sql.splitlines() if not line.lstrip().startswith("--"))
    assert re.search(r"owner in \('public', \$owner\)", body)
    header = sql[: sql.index(body.strip()[:10])]
    assert "-- Parameters: $owner" in header
    assert "-- Grain: " in header
    for parameter in re.findall(r"\$([a-z_]+)", body):
        assert f"${parameter}" in header
    assert body.count(";") == 1


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Give a store with a private series each of alice and bob."""
    root = tmp_path_factory.mktemp("owned")
    builders.fill_root(root / "alice", SERIES)
    builders.fill_root(root / "bob", builders.series(dataset_id="e" * 16))
    with Store(":memory:", [("alice", root / "alice"), ("bob", root / "bob")]) as store:
        store.sync()
        yield store


@pytest.mark.parametrize("name", query_names())
def test_owners_see_only_their_own(owned: Store, name: str) -> None:
    rows = ask(owned, name, owner="alice")
    assert len(rows)
    for stranger in ("local", "public", "' or true --"):
        assert ask(owned, name, owner=stranger).empty
    others = ask(owned, name, owner="bob")
    if "dataset_id" in rows:
        assert set(rows["dataset_id"]) == {SERIES.dataset_id}
        assert set(others["dataset_id"]) <= {"e" * 16}
    else:
        assert others.empty


def test_everyone_sees_what_is_public(tmp_path: Path) -> None:
    builders.fill_root(tmp_path, SERIES)
    with Store(":memory:", [("public", tmp_path)]) as store:
        store.sync()
        for name in query_names():
            assert len(ask(store, name, owner="anyone"))


def truth_of(cells: pd.DataFrame, truth: str | None) -> pd.Series:
    if truth in (None, "all"):
        return pd.Series(data=True, index=cells.index)
    return cells["genotype"] == "mutant" if truth == "mutant" else cells["label_source"] == truth


def brute_tallies(
    scored: pd.DataFrame, timepoints: list[str] | None, truth: str | None
) -> dict[tuple[str, str, str], tuple[int, int, int]]:
    """Count the cells of one series one by one."""
    scored = scored[scored["label"].notna() & truth_of(scored, truth)]
    if timepoints:
        scored = scored[scored["timepoint"].isin(timepoints)]
    counts: dict[tuple[str, str, str], list[int]] = {}
    for cell in scored.itertuples():
        if cell.label == cell.predicted:
            counts.setdefault((cell.timepoint, cell.donor, cell.label), [0, 0, 0])[0] += 1
        counts.setdefault((cell.timepoint, cell.donor, cell.label), [0, 0, 0])[1] += 1
        counts.setdefault((cell.timepoint, cell.donor, cell.predicted), [0, 0, 0])[2] += 1
    return {key: (value[0], value[1], value[2]) for key, value in counts.items()}


def scored_cells(root: Path, cells: pd.DataFrame, level: str) -> pd.DataFrame:
    """Return test cells with label and prediction at `level`, straight from the bundles."""
    parts = []
    for folder in list_runs(root):
        run, frame = read_run(folder), read_predictions(folder)
        frame = frame[frame["role"] == "test"]
        if run.label_level == "fine" and level == "lineage":
            names = list(dict.fromkeys(to_lineage(label) for label in run.classes))
            proba = np.stack([np.asarray(row, np.float32) for row in frame["proba"]])
            sums = np.zeros((len(frame), len(names)), np.float32)
            for column, label in enumerate(run.classes):
                sums[:, names.index(to_lineage(label))] += proba[:, column]
            frame = frame.assign(
                label=[None if label is None else to_lineage(label) for label in frame["label"]],
                predicted=np.array(names, dtype=object)[sums.argmax(axis=1)],
            )
        parts.append(frame.drop(columns=["proba", "top5"]))
    return pd.concat(parts).merge(cells, on="cell_id")


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 80),
    level=st.sampled_from(["fine", "lineage"]),
    timepoints=st.sampled_from([None, [], ["Healthy"], ["Diagnosis", "Relapse"]]),
    truth=st.sampled_from([None, "all", "clustering", "classifier", "mutant"]),
)
def test_tallies_equal_a_count_by_hand(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    n: int,
    level: str,
    timepoints: list[str] | None,
    truth: str | None,
) -> None:
    root = tmp_path_factory.mktemp("root")
    cells = builders.cells(n, seed)
    write_dataset(root, builders.info(), cells)
    for fold in range(2):
        tested = np.arange(n) % 2 == fold
        run = builders.record(SERIES, fold)
        if tested.any():
            write_run(root, run, builders.predictions(cells[tested], run, seed=seed + fold))
    with Store(":memory:", [("public", root)], threads=1) as store:
        assert store.sync().problems == ()
        filters = {"timepoints": timepoints, "truth": truth}
        rows = ask(store, "tallies", label_level=level, **filters)
        confusion = ask(store, "confusion", label_level=level, **filters)
        facts = store.sql(
            "select * from confusions where role = 'test' and label_level = $level", level=level
        )
    scored = scored_cells(root, cells, level)
    found = {
        (row.timepoint, row.donor, row.cell_type): (row.tp, row.n_label, row.n_predicted)
        for row in rows.itertuples()
    }
    assert found == brute_tallies(scored, timepoints, truth)
    assert len(found) == len(rows)

    labelled = scored[scored["label"].notna()]
    keys = ["donor", "timepoint", "label_source", "genotype", "label", "predicted"]
    expected = labelled.groupby(keys).size().to_dict()
    assert (
        facts.assign(timepoint=facts["timepoint"].astype(str)).groupby(keys)["n"].sum().to_dict()
        == expected
    )
    chosen = labelled[truth_of(labelled, truth)]
    if timepoints:
        chosen = chosen[chosen["timepoint"].isin(timepoints)]
    pairs = chosen.groupby(["label", "predicted"]).size().to_dict()
    assert confusion.set_index(["label", "predicted"])["n"].to_dict() == pairs


def test_cells_of_a_series_are_whole(tmp_path: Path) -> None:
    builders.fill_root(tmp_path, SERIES)
    cells = builders.cells()
    with Store(":memory:", [("public", tmp_path)]) as store:
        store.sync()
        rows = ask(store, "cells_of_series")
        expected = scored_cells(tmp_path, cells, "lineage").set_index("cell_id")
        assert rows["cell_id"].tolist() == cells["cell_id"].tolist()
        assert rows["cell_index"].tolist() == list(range(len(cells)))
        at = expected.loc[rows["cell_id"]]
        assert rows["predicted"].tolist() == at["predicted"].tolist()
        assert rows["label"].where(rows["label"].notna(), None).tolist() == at["label"].tolist()

        thresholds = ask(store, "valid_confidence", label_level="fine")
        valid = pd.concat([read_predictions(folder) for folder in list_runs(tmp_path)])
        valid = valid[(valid["role"] == "valid") & (valid["label"] == valid["predicted"])]
        assert thresholds["threshold"].tolist() == pytest.approx([valid["confidence"].median()])
        assert thresholds["n_cells"].tolist() == [len(valid)]

        samples = ask(store, "sample_tallies")
        sums = samples.groupby(["donor", "timepoint", "sample"])[["n_label", "n_predicted"]].sum()
        assert (sums["n_label"] == sums["n_predicted"]).all()
        assert samples["n_label"].sum() == cells["cell_type_fine"].count()
        types = ["donor", "timepoint", "cell_type"]
        counted = ["tp", "n_label", "n_predicted"]
        pd.testing.assert_frame_equal(
            samples.groupby(types)[counted].sum(),
            ask(store, "tallies").groupby(types)[counted].sum(),
        )

        support = ask(store, "cell_support", label_level=None)
        assert support.groupby("label_level")["n"].sum().to_dict() == {
            "fine": cells["cell_type_fine"].count(),
            "lineage": cells["cell_type_lineage"].count(),
        }
        listed = ask(store, "timepoint_list")
        assert listed["timepoint"].tolist() == ["Healthy", "Diagnosis"]
        assert listed["n_donors"].tolist() == [2, 2]


def test_samples_leave_out_sorted_healthy_samples(tmp_path: Path) -> None:
    cells = builders.cells()
    cells["sample"] = np.where(cells["donor"] == "donor0", "BM5-34p", cells["sample"])
    cells["sample"] = np.where(cells["donor"] == "donor1", "BM1", cells["sample"])
    write_dataset(tmp_path, builders.info(), cells)
    builders.fill_root(tmp_path, SERIES, dataset=False)
    with Store(":memory:", [("public", tmp_path)]) as store:
        store.sync()
        assert set(ask(store, "sample_tallies")["donor"]) == {"donor1", "donor2", "donor3"}
        assert "donor0" in set(ask(store, "tallies")["donor"])


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_sorted_samples_of_known_data_sets_are_in_no_composition(tmp_path: Path, profile) -> None:
    for sample in profile.sorted_samples:
        cells = builders.cells()
        is_one = cells["donor"] == "donor0"
        cells["sample"] = np.where(is_one, sample, cells["sample"])
        # Without a timepoint, as one study of the atlas gives its own.
        cells.loc[is_one, "timepoint"] = None
        root = tmp_path / sample
        write_dataset(root, builders.info(), cells)
        builders.fill_root(root, SERIES, dataset=False)
        with Store(":memory:", [("public", root)]) as store:
            store.sync()
            for query in ("sample_tallies", "predicted_counts"):
                assert "donor0" not in set(ask(store, query)["donor"]), (sample, query)


def test_a_failed_fold_is_listed_and_not_scored(tmp_path: Path) -> None:
    builders.fill_root(tmp_path, SERIES)
    other = builders.series(seed=1)
    run = builders.record(other, 0)
    write_run(tmp_path, run, builders.predictions(builders.cells(), run))
    reason = "the loss is not a number"
    failed = builders.record(other, 1, status="failed", reason=reason, error_kind="InputError")
    write_run(tmp_path, failed, None)
    final = builders.record(other, "final")
    write_run(tmp_path, final, None)
    with Store(":memory:", [("public", tmp_path)]) as store:
        report = store.sync()
        assert (report.n_runs, report.n_failed, report.problems) == (5, 1, ())
        series = ask(store, "series").set_index("seed")
        assert series["n_folds_done"].to_dict() == {0: 2, 1: 1}
        assert list(series.loc[1, "folds_failed"]) == [1]
        assert list(series.loc[1, "reasons"]) == [reason]
        assert len(ask(store, "tallies", series_ids=[failed.series_id])) > 0
        runs = ask(store, "runs").set_index("run_id")
        assert runs.loc[failed.run_id, "reason"] == reason
        assert runs.loc[final.run_id, "fold"] == -1
        predicted = store.sql(
            "select count(*) as n from predictions where run_id = $r", r=failed.run_id
        )
        assert predicted["n"].tolist() == [0]


def test_a_series_counts_one_edition(tmp_path: Path) -> None:
    """After a change of recipe the old runs of the same series must not be added to the new ones."""
    builders.fill_root(tmp_path, SERIES)
    cells = builders.cells()
    with Store(":memory:", [("public", tmp_path)]) as store:
        store.sync()
        before = ask(store, "tallies")
        newer = builders.record(SERIES, 0, recipe_version=2)
        write_run(tmp_path, newer, builders.predictions(cells, newer, seed=9))
        store.sync()
        pd.testing.assert_frame_equal(ask(store, "tallies"), before)
        assert ask(store, "runs").set_index("run_id").loc[newer.run_id, "is_current"] == np.False_
        half = np.arange(len(cells)) < 30
        write_run(
            tmp_path,
            second := builders.record(SERIES, 1, recipe_version=2),
            builders.predictions(cells[half], second, seed=9),
        )
        store.sync()
        after = ask(store, "tallies")
        labelled = cells["cell_type_lineage"].notna()
        assert after["n_label"].sum() == labelled.sum() + labelled[half].sum()
        assert ask(store, "series")["n_folds_done"].tolist() == [2]


def test_folds_with_checkpoints_of_their_own_are_one_edition(tmp_path: Path) -> None:
    """In-house checkpoints are pre-trained fold by fold; a fold made again counts once."""
    series = builders.series(
        model="scgpt", preset="scgpt.small", init="pretrained", checkpoint="mine"
    )
    cells = builders.cells()
    write_dataset(tmp_path, builders.info(series.dataset_id), cells)
    half = np.arange(len(cells)) < 30
    parts = (cells[half], cells[~half])
    with Store(":memory:", [("public", tmp_path)]) as store:
        for day, name in enumerate(("a", "b"), start=1):
            for fold, part in enumerate(parts):
                record = builders.record(
                    series,
                    fold,
                    checkpoint_sha256=f"{name}{fold}",
                    created_at=f"2026-01-0{day}T00:00:0{fold}+00:00",
                )
                write_run(tmp_path, record, builders.predictions(part, record, seed=day))
            store.sync()
            assert ask(store, "series")["n_folds_done"].tolist() == [2]
            labelled = cells["cell_type_lineage"].notna().sum()
            tallies = ask(store, "tallies", series_ids=[series.series_id])
            assert tallies["n_label"].sum() == labelled
        runs = ask(store, "runs")
        assert set(runs[runs["is_current"]]["checkpoint_sha256"]) == {"b0", "b1"}


def test_seeds_are_series_of_their_own(tmp_path: Path) -> None:
    builders.fill_root(tmp_path, SERIES, seed=0)
    builders.fill_root(tmp_path, builders.series(seed=1), seed=5, dataset=False)
    with Store(":memory:", [("public", tmp_path)]) as store:
        store.sync()
        series = ask(store, "series")
        assert series["seed"].tolist() == [0, 1]
        assert set(series["configuration"]) == {"logreg"}
        rows = ask(store, "tallies", series_ids=list(series["series_id"]))
        by_seed = rows.groupby("series_id")["tp"].sum()
        assert len(by_seed) == 2
        totals = rows.groupby("series_id")["n_label"].sum()
        assert len(set(totals)) == 1


def test_a_lineage_run_is_not_offered_at_fine(tmp_path: Path) -> None:
    coarse = builders.series(label_level="lineage")
    builders.fill_root(tmp_path, coarse)
    with Store(":memory:", [("public", tmp_path)]) as store:
        store.sync()
        ids = [coarse.series_id]
        assert ask(store, "tallies", label_level="fine", series_ids=ids).empty
        assert len(ask(store, "tallies", label_level="lineage", series_ids=ids))


def test_sums_decide_the_lineage(tmp_path: Path) -> None:
    """The best fine class may lose to a lineage of two; ties go to the lineage listed first."""
    classes = ("HSC", "HSC-like", "Mono", "Mono-like", "T")
    proba = np.array(
        [
            [0.3, 0.3, 0.0, 0.0, 0.4],
            [0.25, 0.25, 0.5, 0.0, 0.0],
            [0.0, 0.0, 0.25, 0.25, 0.5],
            [0.0, 1.0, 0.0, 0.0, 0.0],
        ]
    )
    cells = builders.cells(4).assign(
        cell_type_fine=["T", "HSC-like", "Mono", None], cell_type_lineage=["T", "HSC", "Mono", None]
    )
    write_dataset(tmp_path, builders.info(), cells)
    run = builders.record(SERIES, 0, classes=classes)
    frame = predictions_frame(cells["cell_id"], cells["cell_type_fine"], proba, classes, 0, "test")
    write_run(tmp_path, run, frame)
    with Store(":memory:", [("public", tmp_path)]) as store:
        store.sync()
        fine = ask(store, "cells_of_series", label_level="fine")
        lineage = ask(store, "cells_of_series", label_level="lineage")
    assert fine["predicted"].tolist() == ["T", "Mono", "T", "HSC-like"]
    assert lineage["predicted"].tolist() == ["HSC", "HSC", "Mono", "HSC"]
    assert lineage["label"].tolist()[:3] == ["T", "HSC", "Mono"]
    assert lineage["label"].isna().tolist() == [False, False, False, True]
    assert lineage["confidence"].tolist() == pytest.approx([0.6, 0.5, 0.5, 1.0], abs=1e-3)


def test_wrong_parameters_are_named(tmp_path: Path) -> None:
    with Store(":memory:", [("public", tmp_path)]) as store:
        with pytest.raises(StoreError, match='no query "drop"'):
            store.query("drop")
        with pytest.raises(
            StoreError, match="does not fit its parameters: label_level, series_ids"
        ):
            store.query("tallies", dataset_id=builders.DATASET)
        with pytest.raises(StoreError, match="does not fit its parameters: nonsense"):
            store.query("datasets", nonsense=1)
