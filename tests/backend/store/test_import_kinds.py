"""Tables that people really have: abstentions, two vocabularies, known cells, odd text."""

from __future__ import annotations

import codecs
import gzip

import numpy as np
import pandas as pd
import pytest

from backend.cli import main
from backend.data.vocabularies import ABSTAINED
from backend.errors import InputError, LabelError
from backend.evaluation import views
from backend.prediction.imported_table import check_table, check_words, inspect_table
from backend.store.bundle import list_runs, read_dataset, read_predictions
from backend.store.imports import import_predictions, read_table
from backend.types import Scope
from tests.backend.store.test_imports import table, write
from tests.helpers import open_store


def plain(n=90):
    """One model that is right on every cell; 30 cells of each of B, Mono and T."""
    label = np.array(["B", "Mono", "T"])[np.arange(n) % 3]
    return pd.DataFrame(
        {
            "cell_id": [f"c{i}" for i in range(n)],
            "label": label,
            "predicted": label,
            "donor": [f"P{i % 9}" for i in range(n)],
        }
    )


@pytest.mark.parametrize("word", [None, "NA", "Unassigned", "unknown", "Doublet"])
def test_abstentions_stay_in_the_denominator(tmp_path, word):
    frame = plain()
    frame.loc[:17, "predicted"] = word
    done = import_predictions(write(frame, tmp_path / "t.csv"), tmp_path, name="x")
    assert (done.n_cells, done.n_abstained) == (90, 18)
    assert any("named a type for 80%" in note for note in done.notes)
    (folder,) = list_runs(tmp_path)
    assert set(read_predictions(folder)["predicted"][:18]) == {ABSTAINED}
    scope = Scope(dataset_id=done.dataset_id, protocol="external", budget="full")
    (answer,) = views.answers(open_store(tmp_path), scope)
    assert answer.scores["accuracy"] == pytest.approx(72 / 90)
    # 24 of 30 cells of each type are called, and none wrongly: F1 = 2·24 / (30 + 24).
    assert answer.scores["macro_f1"] == pytest.approx(48 / 54)
    assert set(answer.description.types) == {"B", "Mono", "T"}
    assert set(views.overview(open_store(tmp_path), scope).provenance.inits.values()) == {
        "not known"
    }


def test_abstentions_beside_probabilities(tmp_path):
    frame = table(models=("one",), folds=1)
    frame.loc[:8, "predicted"] = "NA"
    done = import_predictions(write(frame, tmp_path / "t.csv"), tmp_path, name="x")
    predictions = read_predictions(tmp_path / "runs" / done.run_ids[0])
    assert set(predictions["predicted"][:9]) == {ABSTAINED}
    np.testing.assert_allclose(predictions["confidence"][9:], frame["confidence"][9:], atol=1e-6)


def test_labels_that_name_no_type_are_none(tmp_path):
    frame = plain()
    frame.loc[:5, "label"] = ["Unknown", "-", "Doublets", "Low quality", "unclassified", "n/a"]
    assert read_table(write(frame, tmp_path / "t.csv"))["label"].isna().sum() == 6


IN_OTHER_WORDS = {"B": "B cells", "Mono": "Classical monocytes", "T": "CD4+ T cells"}


def test_two_vocabularies_are_said_before_any_score(tmp_path, capsys):
    frame = plain().assign(predicted=lambda t: t["predicted"].map(IN_OTHER_WORDS))
    path = write(frame, tmp_path / "t.csv")
    words = ["import-predictions", str(path), "--out", str(tmp_path / "home")]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "Classical monocytes → Mono" in told
    assert "--accept-mapping" in told
    assert not (tmp_path / "home").exists()
    assert main([*words, "--accept-mapping"]) == 0
    (folder,) = list_runs(tmp_path / "home")
    assert read_predictions(folder)["predicted"].tolist() == frame["label"].tolist()
    assert main([*words, "--as-written"]) == 0
    assert main([*words, "--accept-mapping", "--map", "B cells=T"]) == 0


def test_other_case_is_another_vocabulary(tmp_path):
    frame = plain().assign(predicted=lambda t: t["predicted"].str.upper())
    found = check_table(write(frame, tmp_path / "t.csv"))
    assert found.suggested == {"MONO": "Mono"}
    with pytest.raises(LabelError, match="MONO → Mono"):
        check_words(found, {}, is_accepted=False, is_as_written=False)


def test_a_type_without_a_label_is_no_other_word(tmp_path):
    """A model that says Pre-B or CLP of B cells is wrong, not in other words."""
    frame = plain()
    frame.loc[frame["label"] == "B", "predicted"] = "Pre-B"
    found = check_table(write(frame, tmp_path / "t.csv"))
    assert found.suggested == {}
    assert check_words(found, {}, is_accepted=False, is_as_written=False) == {}


def test_names_that_share_nothing_are_refused(tmp_path):
    frame = plain().assign(predicted="cluster 7")
    found = check_table(write(frame, tmp_path / "t.csv"))
    with pytest.raises(LabelError, match="No predicted name is a label"):
        check_words(found, {}, is_accepted=False, is_as_written=False)
    with pytest.raises(LabelError, match='no label "X"'):
        check_words(found, {"cluster 7": "X"}, is_accepted=False, is_as_written=False)


def test_probabilities_follow_the_words(tmp_path):
    frame = table(models=("one",), folds=1)
    other = frame.replace({"predicted": IN_OTHER_WORDS}).rename(
        columns={f"proba_{name}": f"proba_{word}" for name, word in IN_OTHER_WORDS.items()}
    )
    back = {word: name for name, word in IN_OTHER_WORDS.items()}
    one = import_predictions(write(frame, tmp_path / "a.csv"), tmp_path / "a", name="x")
    two = import_predictions(
        write(other, tmp_path / "b.csv"), tmp_path / "b", name="x", predicted_as=back
    )
    read = [
        read_predictions(tmp_path / folder / "runs" / done.run_ids[0])
        for folder, done in (("a", one), ("b", two))
    ]
    pd.testing.assert_frame_equal(read[0].drop(columns="proba"), read[1].drop(columns="proba"))


def test_barcodes_are_no_donors(tmp_path):
    frame = plain().assign(donor=lambda t: t["cell_id"])
    done = import_predictions(write(frame, tmp_path / "t.csv"), tmp_path, name="x")
    assert any("these are no donors" in note for note in done.notes)
    info, cells = read_dataset(tmp_path / "datasets" / done.dataset_id)
    assert set(cells["donor"]) == {"unknown"}
    assert info["n_donors"] == 1


def test_a_model_joins_the_dataset_that_holds_its_cells(tmp_path, capsys):
    own = plain()
    known = import_predictions(write(own, tmp_path / "own.csv"), tmp_path / "home", name="Known")
    more = pd.DataFrame({"cell_id": [*own["cell_id"][:60], "new"], "label": None, "predicted": "T"})
    path = write(more, tmp_path / "more.csv")
    words = ["import-predictions", str(path), "--out", str(tmp_path / "home"), "--name", "Second"]
    assert main(words) == 0
    assert f"--add-to {known.dataset_id}" in capsys.readouterr().out
    assert main([*words, "--add-to", known.dataset_id]) == 0
    assert "1 rows name cells that the dataset does not have" in capsys.readouterr().out
    scope = Scope(dataset_id=known.dataset_id, protocol="external", budget="full")
    store = open_store(tmp_path / "home")
    assert set(views.configurations(store, scope)["display_name"]) == {"Known", "Second"}
    with pytest.raises(InputError, match="no dataset"):
        import_predictions(path, tmp_path, name="x", add_to="0" * 16)


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("t.csv.gz", lambda text: gzip.compress(text.encode())),
        ("t.csv", lambda text: text.encode("utf-16")),
        ("t.tsv.gz", lambda text: gzip.compress(text.replace(",", "\t").encode("utf-16"))),
        ("t.csv", lambda text: ("\ufeff" + text).encode()),
    ],
)
def test_text_as_programs_write_it(tmp_path, name, encode):
    expected = read_table(write(plain(), tmp_path / "plain.csv"))
    path = tmp_path / name
    path.write_bytes(encode(plain().to_csv(index=False)))
    pd.testing.assert_frame_equal(read_table(path), expected)


def test_decimal_commas(tmp_path):
    text = "cell_id;label;predicted;confidence;proba_B;proba_T\na;B;B;0,75;0,75;0,25\nb;T;T;1;0;1\n"
    (tmp_path / "t.csv").write_text(text)
    read = read_table(tmp_path / "t.csv")
    assert read["confidence"].tolist() == [0.75, 1.0]
    assert read["proba_T"].tolist() == [0.25, 1.0]


def test_ids_in_an_unnamed_column_or_index(tmp_path):
    frame = plain().set_index("cell_id")
    frame.index.name = None
    frame.to_csv(tmp_path / "t.csv")
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        assert read_table(tmp_path / name)["cell_id"].iloc[0] == "c0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 rest", "workbook"),
        (b"\x1f\x8b\x08 broken", "cannot be unpacked"),
        (codecs.BOM_UTF8, "is empty"),
        (codecs.BOM_UTF8 + b"\n \n", "is empty"),
        (
            b"cell_id,label,predicted," + b"x" * 200_000 + b"\na,B,B,1\n",
            "more than 131,072 letters",
        ),
        (b"cell_id,label,predicted\n" + b"a,B,B\n" * 200_000 + b"z\0,B,B\n", "zero byte"),
        (b"cell_id,label,predicted,umap_x,umap_y\na,B,B,1e39,0\n", "is too large"),
        (b"cell_id,label,predicted,proba_,proba_B\na,B,B,0,1\n", "names no type"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.csv")


def test_a_page_gets_plain_values(tmp_path):
    frame = plain().assign(predicted=lambda t: t["predicted"].map(IN_OTHER_WORDS))
    found = inspect_table(write(frame, tmp_path / "t.csv"), [])
    assert found["suggested"] == {word: name for name, word in IN_OTHER_WORDS.items()}
    (tmp_path / "bad.csv").write_text("nothing\n")
    message, hint = inspect_table(tmp_path / "bad.csv", [])["problem"]
    assert "no column cell_id" in message
    assert hint
