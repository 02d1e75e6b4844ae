from __future__ import annotations

import json

import pytest

from backend.cli import main
from backend.errors import ModelUnavailable
from backend.prediction.offer import offer
from backend.prediction.saved import final_models, find_model
from tests.backend.prediction.conftest import N_TRAIN, run_of
from tests.backend.prediction.test_evaluate import new_cells
from tests.helpers import open_store


def test_only_final_runs_are_offered_with_the_quality_of_their_folds(trained_home):
    models = final_models([trained_home])
    table = offer(open_store(trained_home), models, owner="public")
    assert table["display_name"].tolist() == ["L1 logistic regression", "Majority class"]
    first, second = table["quality"]
    assert first.startswith("macro-F1 Diagnosis ")
    assert first.endswith("; donor-held-out, 2 folds")
    assert second.startswith("quality not known")
    assert table["n_train"].tolist() == [N_TRAIN, N_TRAIN]
    assert table["has_reference"].all()
    assert table["types"][0] == ("HSC", "Mono", "T")


def test_what_is_no_stored_model_is_refused(trained_home):
    with pytest.raises(ModelUnavailable, match="There is no run"):
        find_model("0" * 16, [trained_home])
    with pytest.raises(ModelUnavailable, match=r"There is no run \"\.\./x\""):
        find_model("../x", [trained_home])
    with pytest.raises(ModelUnavailable, match="is fold 0"):
        find_model(run_of(trained_home, "logreg", 0), [trained_home])
    model = find_model(run_of(trained_home, "logreg"), [trained_home])
    assert model.trained_on() == "Reference"
    assert model.train_donors() == {f"AML{n}" for n in range(1, 7)}
    assert len(model.train_cells()) == N_TRAIN


def test_commands(trained_home, tmp_path, capsys):
    path = tmp_path / "new.h5ad"
    new_cells(60).write_h5ad(path)
    run_id = run_of(trained_home, "logreg")
    shared = ["--models", str(trained_home)]
    assert main(["predict", "--list", *shared]) == 0
    assert run_id in capsys.readouterr().out
    words = ["--run", run_id, "--dataset", str(path), "--out", str(tmp_path / "out"), *shared]
    assert main(["predict", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_scored"] == 0
    assert main(["evaluate", *words, "--map", "T cells="]) == 0
    out = capsys.readouterr().out
    assert "classical monocyte → Mono" in out
    assert "T cells → not scored  (20 cells; chosen)" in out
    assert out.index("Labels of the file") < out.index("macro-F1")
    assert main(["evaluate", *words, "--role", "cell_type=nothing"]) == 2
    assert "no column nothing" in capsys.readouterr().err
    assert main(["predict", "--run", run_id, *shared]) == 2
