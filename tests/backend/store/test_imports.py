from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from backend.cli import main
from backend.errors import InputError
from backend.evaluation import views
from backend.store.bundle import list_runs, read_dataset, read_predictions, read_run
from backend.store.imports import NOT_RUN_HERE, import_predictions, read_table, template
from backend.store.per_cell import probabilities
from backend.types import Scope
from tests.helpers import open_store

TYPES = ("B", "Mono", "T")


def table(n=90, *, models=("first", "second"), seed=0, folds=2):
    rng = np.random.default_rng(seed)
    frames = []
    label = np.array(TYPES)[np.arange(n) % 3]
    for model in models:
        proba = rng.dirichlet([1, 1, 1], n) * 0.5
        proba[np.arange(n), np.arange(n) % 3] += 0.5 * (rng.random(n) < 0.8)
        proba /= proba.sum(axis=1, keepdims=True)
        best = proba.argmax(axis=1)
        frame = pd.DataFrame({f"proba_{t}": proba[:, k] for k, t in enumerate(TYPES)})
        frame.insert(0, "cell_id", [f"c{i}" for i in range(n)])
        frame.insert(1, "label", label)
        frame.insert(2, "predicted", np.array(TYPES)[best])
        frame["confidence"] = proba.max(axis=1)
        frame["donor"] = [f"P{i % 9}" for i in range(n)]
        frame["timepoint"] = np.where(np.arange(n) % 2, "diagnosis", "Relapse")
        frame["fold"] = np.arange(n) % folds
        frame["model"] = model
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def write(frame, path):
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_predictions_become_a_dataset_with_runs(tmp_path, suffix):
    frame = table()
    frame.loc[frame["cell_id"] == "c3", "label"] = None
    done = import_predictions(write(frame, tmp_path / f"t.{suffix}"), tmp_path, name="Mine")
    assert (done.n_cells, done.n_unlabelled, len(done.run_ids)) == (90, 1, 4)
    assert done.models == ("first", "second")
    info, cells = read_dataset(tmp_path / "datasets" / done.dataset_id)
    assert info["name"] == "Mine"
    assert set(cells["timepoint"]) == {"Diagnosis", "Relapse"}
    for folder in list_runs(tmp_path):
        record = read_run(folder)
        assert record.model == "external"
        assert NOT_RUN_HERE in record.notes
    store = open_store(tmp_path)
    scope = Scope(dataset_id=done.dataset_id, protocol="external", budget="full")
    assert set(views.configurations(store, scope)["display_name"]) == {"first", "second"}
    first = frame[(frame["model"] == "first") & frame["label"].notna()]
    by_type = views.f1_by_cell_type(store, scope).scores
    own = by_type[(by_type["column"] == "first") & (by_type["cell_type"] == "B")].iloc[0]
    tp = ((first["label"] == "B") & (first["predicted"] == "B")).sum()
    sums = (first["label"] == "B").sum() + (first["predicted"] == "B").sum()
    assert own["f1"] == pytest.approx(2 * tp / sums)
    assert not views.overview(store, scope).scores.empty


def test_fine_labels_are_scored_at_both_levels(tmp_path):
    frame = table(models=("one",)).replace(
        {"label": {"Mono": "Mono-like"}, "predicted": {"Mono": "Mono-like"}}
    )
    frame = frame.rename(columns={"proba_Mono": "proba_Mono-like"})
    done = import_predictions(write(frame, tmp_path / "t.csv"), tmp_path, name="x")
    assert done.label_level == "fine"
    levels = views.scope_choices(open_store(tmp_path))["label_level"]
    assert set(levels) == {"fine", "lineage"}


@pytest.mark.parametrize("kept", [["confidence"], []])
def test_probabilities_are_not_needed(tmp_path, kept):
    frame = table(models=("one",))[["cell_id", "label", "predicted", *kept]]
    frame["label"] = frame["label"].replace("Mono", "Mono-like")
    done = import_predictions(write(frame, tmp_path / "t.csv"), tmp_path, name="x")
    predictions = read_predictions(tmp_path / "runs" / done.run_ids[0])
    expected = frame["confidence"].to_numpy() if kept else 1.0
    np.testing.assert_allclose(predictions["confidence"], expected, atol=1e-6)
    assert any("no confidence" in note for note in done.notes) is not bool(kept)
    store = open_store(tmp_path)
    assert not store.info()["problems"]
    scope = Scope(dataset_id=done.dataset_id, protocol="external", budget="full")
    assert views.f1_by_cell_type(store, scope).scores["f1"].notna().all()
    proba = probabilities(store, done.run_ids[0], ["c0"], owner="public")
    first = frame["confidence"][0] if kept else 1.0
    assert proba.loc["c0", frame["predicted"][0]] == pytest.approx(first, abs=1e-3)


def test_the_template_is_accepted(tmp_path):
    (tmp_path / "t.csv").write_text(template(), encoding="utf-8")
    done = import_predictions(tmp_path / "t.csv", tmp_path, name="x")
    assert (done.n_cells, done.n_unlabelled) == (3, 1)
    assert open_store(tmp_path).info()["n_runs"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="predicted"), r"no column predicted\. Found: cell_id"),
        (lambda t: t.assign(confidence=1.5), r"`confidence`, line 2: \"1\.5\" is not between 0 and 1 \(90"),
        (lambda t: t.assign(confidence=["x", *["0.5"] * 89]), r"`confidence`, line 2: \"x\" is not a number"),
        (lambda t: t.assign(cell_id=["c1", *t["cell_id"][1:]]), r"`cell_id`, line 3: \"c1\" occurs twice"),
        (lambda t: t.assign(cell_id=[None, *t["cell_id"][1:]]), r"`cell_id`, line 2: the empty value"),
        (lambda t: t.assign(predicted=[*t["predicted"][:-1], "NK"]), r"line 91: \"NK\" has no proba_ column"),
        (lambda t: t.assign(proba_B=t["proba_B"] + 0.3), r"`proba_…`, line 2: \"1\.3\" is the sum|is not between"),
        (lambda t: t.assign(timepoint="D29"), r"`timepoint`, line 2: \"D29\" is not a known timepoint"),
        (lambda t: t.assign(fold=0.5), r"`fold`, line 2: \"0\.5\" is not a whole number"),
        (lambda t: t.assign(n_counts=-1.0), r"`n_counts`, line 2: \"-1\.0\" is below zero"),
        (lambda t: t.assign(fold=-1), r"`fold`, line 2: \"-1\.0\" is no fold"),
        (lambda t: t[:0], "a header and no row"),
    ],
)  # fmt: skip
def test_errors_name_line_and_column(tmp_path, change, message):
    write(change(table(models=("one",))), tmp_path / "t.csv")
    with pytest.raises(InputError, match=message):
        import_predictions(tmp_path / "t.csv", tmp_path, name="x")
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv"}


def test_parquet_errors_name_the_row(tmp_path):
    write(table(models=("one",)).assign(confidence=2.0), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="`confidence`, row 1"):
        read_table(tmp_path / "t.parquet")


def test_labels_of_a_cell_must_agree_between_models(tmp_path):
    frame = table()
    frame.loc[95, "label"] = "B" if frame.loc[95, "label"] != "B" else "T"
    with pytest.raises(InputError, match=r"`label`, line 97: .* differs from an earlier row"):
        read_table(write(frame, tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x89HDF\r\n\x1a\n\0\0\0", "neither text nor Parquet"),
        (b"PAR1 but no more", "cannot be read as Parquet"),
        (b"cell_id,label,predicted\na,B,B,B\n", "4 values instead of 3"),
        (b"cell_id,label,predicted\n\xff\xfe,B,B\n", "cannot be read as CSV|UTF"),
        (b"cell_id,cell_id,label,predicted\na,a,B,B\n", "more than once"),
        (b"just one word\n", "no column cell_id, label, predicted"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.csv")


def test_separators_quotes_and_formulas_are_text(tmp_path):
    (tmp_path / "t.csv").write_text(
        'cell_id;label;predicted\n"a;1";=1+1;"<b>B</b>"\nβ;NA;T\n', encoding="utf-8-sig"
    )
    frame = read_table(tmp_path / "t.csv")
    assert frame["cell_id"].tolist() == ["a;1", "β"]
    assert frame["label"].tolist() == ["=1+1", None]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=["label", "predicted"]), "no column label, predicted. Found: cell_id"),
        (lambda t: t.assign(cell_id="same"), '"same" occurs twice'),
        (lambda t: t.assign(proba_B=0.0, proba_Mono=0.0), "is the sum of the probabilities"),
        (lambda t: t.assign(fold=np.arange(len(t))), "has 1,200 folds"),
        (lambda t: t.assign(model=[f"m{i}" for i in range(len(t))]), "`model` has 1,200 values"),
    ],
)  # fmt: skip
def test_a_refused_table_leaves_nothing(tmp_path, capsys, change, message, suffix):
    path = write(change(table(1200, models=("one",))), tmp_path / f"t.{suffix}")
    assert main(["import-predictions", str(path), "--out", str(tmp_path / "new" / "home")]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("error: ")
    assert "\nhint:  " in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_formulas_and_markup_are_kept_as_text(tmp_path, suffix):
    label, cell = "<img src=x onerror=alert(1)>", '=HYPERLINK("http://x")'
    frame = pd.DataFrame({"cell_id": [cell, "b"], "label": [label, "T"], "predicted": ["T", label]})
    path = write(frame, tmp_path / f"t.{suffix}")
    done = import_predictions(path, tmp_path / "home", name="<b>x</b>")
    _, cells = read_dataset(tmp_path / "home" / "datasets" / done.dataset_id)
    assert cells["cell_id"].tolist() == [cell, "b"]
    (folder,) = list_runs(tmp_path / "home")
    assert read_run(folder).classes == (label, "T")
    assert read_predictions(folder)["predicted"].tolist() == ["T", label]


def test_command(tmp_path, capsys):
    assert main(["import-predictions", "--template"]) == 0
    assert capsys.readouterr().out == template()
    write(table(), tmp_path / "t.csv")
    words = ["import-predictions", str(tmp_path / "t.csv"), "--out", str(tmp_path / "home")]
    assert main([*words, "--protocol", "donor", "--name", "Theirs"]) == 0
    out = capsys.readouterr().out
    assert "Theirs: 90 cells (imported predictions: not run here)" in out
    (choice,) = views.scope_choices(open_store(tmp_path / "home")).itertuples()
    assert choice.protocol == "donor"
    assert main(["import-predictions", str(tmp_path / "none.csv")]) == 2
