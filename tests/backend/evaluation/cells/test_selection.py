"""Selections: what they hold, where they are kept, and which cells they name."""

from __future__ import annotations

import json
import os
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import FaultlineError, InputError, StoreError
from backend.evaluation.cells.selection import (
    SavedSelection,
    cells_of,
    delete_selection,
    list_selections,
    load_selection,
    save_selection,
    scope_json,
    scope_of,
)
from backend.evaluation.outcomes import error_kind
from backend.types import Scope
from tests.cells import judged_cells

SQUARE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
SCOPE = {"dataset_id": "a" * 16}


def polygon(**changes) -> SavedSelection:
    return SavedSelection(**({"kind": "polygon", "polygon": SQUARE, "scope": SCOPE} | changes))


def predicate(results, asked, *, against=None, configuration="logreg", **scope) -> SavedSelection:
    kept = scope_json(results.scope(**scope), configuration=configuration, against=against)
    return SavedSelection(kind="predicate", predicate=asked, scope=kept)


@pytest.mark.parametrize(
    "selection",
    [
        polygon(name='Blasts <b>"at"</b> day 0 \u202bמימין\u202c 🩸'),
        SavedSelection(kind="predicate", predicate={"label": ["T"], "donor": "AML01"}, scope=SCOPE),
        SavedSelection(kind="cells", cells=np.array([3, 1, 1]), scope=SCOPE),
        SavedSelection(kind="cells", cells=[], scope=SCOPE),
    ],
    ids=["polygon", "predicate", "cells", "no cells"],
)
def test_saved_selection_comes_back(tmp_path, selection):
    saved = save_selection(tmp_path, "local", selection)
    back = load_selection(tmp_path, "local", saved)
    assert saved == selection.id == back.id
    assert set(saved) <= set(string.hexdigits.lower())
    assert len(saved) == 16
    assert back.to_json() == selection.to_json()
    assert save_selection(tmp_path, "local", back) == saved
    assert [path.name for path in (tmp_path / "selections/local").iterdir()] == [f"{saved}.json"]


def test_id_does_not_depend_on_the_order_of_words():
    kept = [
        SavedSelection(kind="predicate", predicate=asked, scope=SCOPE).id
        for asked in (
            {"label": ["T", "B"], "donor": ["AML01"]},
            {"donor": ("AML01", "AML01"), "label": {"B", "T"}},
        )
    ]
    assert kept[0] == kept[1]
    assert polygon().id != polygon(name="named").id


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"polygon": SQUARE[:2]}, "2 × 2"),
        ({"polygon": [[0, 0, 0]] * 4}, "4 × 3"),
        ({"polygon": [*SQUARE[:3], [float("nan"), 1]]}, "not numbers"),
        ({"polygon": [[0, 0], [1], [2, 2]]}, "not a list of points"),
        ({"polygon": "drop table"}, "not a list of points"),
        ({"polygon": 3}, "of one number"),
        ({"polygon": [[i, i] for i in range(501)]}, "501 × 2"),
        ({"polygon": None}, "none of them"),
        ({"cells": [1]}, "polygon, cells"),
        ({"kind": "lasso"}, '"lasso"'),
        ({"name": "x" * 201}, "201 characters"),
        ({"name": 7}, "int"),
        ({"name": "half \ud83e"}, "str"),
        ({"scope": {}}, "names no dataset"),
        ({"scope": {"dataset_id": "../../etc"}}, "names no dataset"),
        ({"scope": SCOPE | {"facet": {1, 2}}}, "not plain values"),
        ({"scope": SCOPE | {"facet": "x" * 70_000}}, "bytes"),
        ({"kind": "predicate", "polygon": None, "predicate": {}}, "empty"),
        ({"kind": "predicate", "polygon": None, "predicate": {"label": []}}, '"label"'),
        ({"kind": "predicate", "polygon": None, "predicate": {"label": [1]}}, '"label"'),
        ({"kind": "predicate", "polygon": None, "predicate": {"n": ["1"]}}, '"n"'),
        ({"kind": "predicate", "polygon": None, "predicate": {"outcome": ["meh"]}}, '"meh"'),
        ({"kind": "predicate", "polygon": None, "predicate": {"label": ["x" * 2_001]}}, "2,001"),
        ({"kind": "cells", "polygon": None, "cells": [-1]}, "whole numbers"),
        ({"kind": "cells", "polygon": None, "cells": [0.5]}, "whole numbers"),
        ({"kind": "cells", "polygon": None, "cells": [[1], [2, 3]]}, "list of numbers"),
    ],
)
def test_selection_that_cannot_be_used_is_refused(changes, found):
    with pytest.raises(InputError, match="This selection cannot be used") as caught:
        polygon(**changes)
    assert found in caught.value.message
    assert caught.value.hint


def test_missing_foreign_and_impossible_ids_answer_alike(tmp_path):
    saved = save_selection(tmp_path, "alice", polygon())
    told = set()
    for owner, asked in (
        ("bob", saved),
        ("alice", "0" * 16),
        ("alice", "../alice/" + saved),
        ("alice", saved.upper() + "é"),
        ("alice", ""),
    ):
        with pytest.raises(InputError) as caught:
            load_selection(tmp_path, owner, asked)
        told.add(caught.value.message.replace(f'"{asked}"', '"…"'))
    assert told == {'No selection "…": it is gone, or it was never saved here.'}
    assert load_selection(tmp_path, "alice", saved).id == saved


@pytest.mark.parametrize("owner", ["", "../bob", "a b", "x" * 65])
def test_owner_that_could_leave_the_folder_is_refused(tmp_path, owner):
    with pytest.raises(InputError, match="is no owner"):
        save_selection(tmp_path, owner, polygon())
    with pytest.raises(InputError, match="is no owner"):
        load_selection(tmp_path, owner, "0" * 16)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"kind": "polygon"}', b'{"kind":"cells","sum":1}', b"\xff"]
)
def test_damaged_file_is_named(tmp_path, content):
    saved = save_selection(tmp_path, "local", polygon())
    (tmp_path / f"selections/local/{saved}.json").write_bytes(content)
    with pytest.raises(StoreError, match=f"{saved} is damaged"):
        load_selection(tmp_path, "local", saved)


def test_selections_of_an_owner_are_listed_newest_first_and_deleted(tmp_path):
    first = save_selection(tmp_path, "local", polygon(name="first"))
    second = save_selection(tmp_path, "local", polygon(name="second"))
    other = save_selection(tmp_path, "somebody", polygon(name="other"))
    folder = tmp_path / "selections" / "local"
    os.utime(folder / f"{first}.json", (1, 1))
    (folder / f"{'0' * 16}.json").write_text("{")
    os.utime(folder / f"{'0' * 16}.json", (0, 0))
    (folder / "notes.txt").write_text("not one")
    found = list_selections(tmp_path, "local")
    assert [kept.selection_id for kept in found] == [second, first, "0" * 16]
    assert [kept.selection and kept.selection.name for kept in found] == ["second", "first", None]
    for name in (first, other, "../somebody/" + other):
        delete_selection(tmp_path, "local", name)
    assert len(list_selections(tmp_path, "local")) == 2
    assert len(list_selections(tmp_path, "somebody")) == 1


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "selections").write_text("a file where the folder belongs")
    with pytest.raises(StoreError, match="cannot be saved"):
        save_selection(tmp_path, "local", polygon())


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
), max_leaves=6))  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_any_json_is_read_or_refused(values):
    for key in ("polygon", "predicate", "cells"):
        given = {"kind": key, "scope": SCOPE, key: values}
        try:
            kept = SavedSelection.from_json(given).to_json()
        except InputError:
            continue
        assert SavedSelection.from_json(json.loads(json.dumps(kept))).to_json() == kept


def test_scope_comes_back_for_its_owner(results):
    scope = results.scope(protocol="random", timepoints=("Healthy", "Relapse"), truth="clustering")
    kept = polygon(scope=scope_json(scope, facet="timepoint"))
    assert scope_of(kept, "alice") == scope.with_(owner="alice")
    assert kept.scope["facet"] == "timepoint"
    assert "against" not in scope_json(scope, against=None)


def test_scope_of_an_upload_comes_back():
    scope = Scope(dataset_id="a" * 16, protocol="external", budget="full", cell_types=("T",))
    assert scope_of(polygon(scope=scope_json(scope)), "local") == scope


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ({"protocol": "moon"}, 'unknown protocol "moon"'),
        ({"label_level": []}, 'unknown label level "[]"'),
        ({"truth": "1"}, 'unknown truth "1"'),
        ({"timepoints": "Relapse"}, "`timepoints` is no list of texts"),
        ({"timepoints": ["Relapse", "Later"]}, 'unknown timepoint "Later"'),
        ({"cell_types": [1]}, "`cell_types` is no list of texts"),
        ({"budget": 3}, "`budget` is 3, which is no text"),
    ],
)
def test_scope_with_unknown_words_is_refused(words, found):
    with pytest.raises(InputError) as caught:
        scope_of(polygon(scope=SCOPE | words), "local")
    assert caught.value.message == f"This selection cannot be used: in its scope, {found}."
    assert caught.value.hint


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ({"label": ["T"], "predicted": ["NK"]}, lambda c: (c.label == "T") & (c.predicted == "NK")),
        ({"outcome": ["confidently wrong"]}, lambda c: c.outcome == "confidently wrong"),
        (
            {"outcome": ["wrong", "confidently wrong"], "timepoint": ["Relapse"]},
            lambda c: c.outcome.isin(["wrong", "confidently wrong"]) & (c.timepoint == "Relapse"),
        ),
        ({"outcome": ["not scored"]}, lambda c: c.outcome == "not scored"),
        ({"donor": ["AML01", "BM02"]}, lambda c: c.donor.isin(["AML01", "BM02"])),
        ({"genotype": ["mutant"]}, lambda c: c.genotype == "mutant"),
        ({"label_source": ["clustering"]}, lambda c: c.label_source == "clustering"),
        ({"label": ["unicorn"]}, lambda c: c.label == "unicorn"),
    ],
)
def test_predicate_names_the_cells_of_a_count_by_hand(store, results, asked, chosen):
    cells = judged_cells(store, results.scope(), "logreg")
    found = cells_of(store, "local", predicate(results, asked))
    assert found.dtype == np.int64
    assert found.tolist() == cells.cell_index[chosen(cells)].tolist()


def test_error_kind_names_its_cells(store, results):
    cells = judged_cells(store, results.scope(label_level="fine"), "logreg")
    cells = cells.dropna(subset=["label", "predicted"])
    kinds = [error_kind(a, b) for a, b in zip(cells.label, cells.predicted, strict=True)]
    for kind in ("malignant ↔ normal", "same lineage family", "other lineage family"):
        asked = predicate(results, {"error_kind": [kind]}, label_level="fine")
        expected = cells.cell_index[np.array(kinds) == kind].tolist()
        assert cells_of(store, "local", asked).tolist() == expected
        assert expected
    unknown = predicate(results, {"error_kind": ["family unknown"]})
    assert cells_of(store, "local", unknown).size == 0


def test_two_models_are_compared_cell_by_cell(store, results):
    ours = judged_cells(store, results.scope(), "logreg")
    others = judged_cells(store, results.scope(), "majority")
    wrong = ["wrong", "confidently wrong"]
    asked = {"outcome": ["correct"], "other_outcome": wrong}
    found = cells_of(store, "local", predicate(results, asked, against="majority"))
    by_hand = (ours.outcome == "correct") & others.outcome.isin(wrong)
    assert found.tolist() == ours.cell_index[by_hand].tolist()
    asked = {"outcome": wrong, "other_outcome": wrong, "agreement": ["same"]}
    found = cells_of(store, "local", predicate(results, asked, against="majority"))
    by_hand = ours.outcome.isin(wrong) & others.outcome.isin(wrong)
    by_hand &= ours.predicted == others.predicted
    assert found.tolist() == ours.cell_index[by_hand].tolist()
    assert found.size


def test_scope_narrows_a_predicate(store, results):
    asked = predicate(
        results, {"outcome": ["correct"]}, timepoints=("Relapse",), cell_types=("T", "B")
    )
    cells = judged_cells(store, results.scope(timepoints=("Relapse",)), "logreg")
    by_hand = (cells.outcome == "correct") & cells.label.isin(["T", "B"])
    assert cells_of(store, "local", asked).tolist() == cells.cell_index[by_hand].tolist()


def test_cells_by_name_are_those_of_the_dataset(store, results):
    kept = SavedSelection(kind="cells", cells=[0, 5, 10**6], scope=scope_json(results.scope()))
    assert cells_of(store, "local", kept).tolist() == [0, 5]


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ({"dataset_id": "0" * 16}, "is not here any more"),
        ({"configuration": "gone"}, 'No series "gone"'),
        ({"seed": 9}, "has no seed 9"),
        ({"configuration": None}, "need a model"),
    ],
)
def test_what_is_gone_is_said(store, results, scope, message):
    kept = predicate(results, {"predicted": ["T"]})
    with pytest.raises(FaultlineError, match=message):
        cells_of(
            store,
            "local",
            SavedSelection(
                kind="predicate", predicate=kept.predicate, scope=dict(kept.scope) | scope
            ),
        )


def test_area_is_left_to_the_map(store, results):
    with pytest.raises(InputError, match="needs the map"):
        cells_of(store, "local", polygon(scope=scope_json(results.scope())))


def test_stranger_sees_no_cells(tmp_path):
    from backend.store.cache import Store
    from tests.helpers import write_results

    results = write_results(tmp_path, models={"majority": ("Majority", (0,))}, fine=())
    with Store(":memory:", [("alice", tmp_path)], threads=1) as opened:
        opened.sync()
        kept = predicate(results, {"label": ["T"]}, configuration="majority")
        assert cells_of(opened, "alice", kept).size
        with pytest.raises(InputError, match="is not here any more"):
            cells_of(opened, "bob", kept)
