from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pandas as pd
import pytest

from backend.cli import main
from backend.errors import ModelUnavailable
from backend.prediction.model_choices import describe_models
from backend.prediction.saved_models import find_saved_model, list_saved_models
from tests.backend.prediction.conftest import N_TRAIN, run_of
from tests.backend.prediction.test_evaluate import new_cells
from tests.helpers import open_store


def test_only_final_runs_are_offered_with_the_quality_of_their_folds(trained_home):
    models = list_saved_models([trained_home])
    table = describe_models(open_store(trained_home), models, owner="public")
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
        find_saved_model("0" * 16, [trained_home])
    with pytest.raises(ModelUnavailable, match=r"There is no run \"\.\./x\""):
        find_saved_model("../x", [trained_home])
    with pytest.raises(ModelUnavailable, match="is fold 0"):
        find_saved_model(run_of(trained_home, "logreg", 0), [trained_home])
    model = find_saved_model(run_of(trained_home, "logreg"), [trained_home])
    assert model.trained_on() == "Reference"
    assert model.train_donors() == {f"AML{n}": {"tiny"} for n in range(1, 7)}
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


def test_file_without_cell_types_is_predicted(trained_home, tmp_path, capsys):
    path = tmp_path / "new.h5ad"
    adata = new_cells(60)
    adata.obs = pd.DataFrame({"patient": ["P_1", "P_2", "P_2"] * 20}, index=adata.obs_names)
    adata.write_h5ad(path)
    words = ["--run", run_of(trained_home, "logreg"), "--dataset", str(path)]
    words += ["--out", str(tmp_path / "out"), "--models", str(trained_home)]
    assert main(["evaluate", *words]) == 0
    told = capsys.readouterr()
    assert "nothing is scored" in told.err
    assert "ccuracy" in told.out.splitlines()[0]
    assert "P_2 (40 cells): " in told.out
    assert "%" in told.out
    # Where another column looks like labels, it is named instead.
    adata.obs["fine_annot"] = new_cells(60).obs["cell_type"].to_numpy()
    adata.write_h5ad(path)
    assert "column for the cell type" in refusal(["evaluate", *words], capsys)


def test_what_missing_genes_cost_is_measured_on_the_reference(
    trained_home, trained_file, tmp_path, capsys
):
    run_id = run_of(trained_home, "logreg")
    adata = new_cells(60)
    names, weights = find_saved_model(run_id, [trained_home]).load().gene_weights()
    strongest = {names[k] for k in np.argsort(-weights)[: len(names) // 2]}
    poor = tmp_path / "poor.h5ad"
    adata[:, [name not in strongest for name in adata.var_names]].copy().write_h5ad(poor)
    words = ["evaluate", "--run", run_id, "--out", str(tmp_path / "out"), "--dataset", str(poor)]
    words += ["--models", str(trained_home)]
    assert main(words) == 0
    assert "is not known without their counts" in capsys.readouterr().out
    assert main([*words, "--reference", str(trained_file)]) == 0
    out = capsys.readouterr().out
    found = re.search(
        r"on 240 cells of 6 donors that it was fitted on, its accuracy is (\S+), and (\S+) without "
        r"the (\d+) genes",
        out,
    )
    assert float(found[1]) > float(found[2])
    assert int(found[3]) > 0
    assert "not known without" not in out
    assert "was not fitted on poor.h5ad" in refusal([*words, "--reference", str(poor)], capsys)


def refusal(words, capsys):
    """Run a command that must be refused; return what is wrong, and what to do."""
    capsys.readouterr()
    assert main(words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    _, _, rest = told.err.partition("error: ")
    message, mark, hint = rest.partition("\nhint:  ")
    assert message
    assert mark
    assert hint.strip()
    return message


def log_values(adata):
    adata.X = np.log1p(adata.X.astype(np.float32))


def a_missing_value(adata):
    adata.X = adata.X.astype(np.float32)
    adata.X.data[0] = np.nan


def repeated_cells(adata):
    adata.obs_names = ["one"] * adata.n_obs


def other_genes(adata):
    adata.var_names = [f"g{number}" for number in range(adata.n_vars)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (log_values, "looks log-normalised"),
        (a_missing_value, "1 NaN"),
        (repeated_cells, "occur more than once: one"),
        (other_genes, "known human genes"),
    ],
)
def test_what_cannot_be_evaluated_leaves_nothing(trained_home, tmp_path, capsys, spoil, message):
    adata = new_cells(60)
    spoil(adata)
    path = tmp_path / "new.h5ad"
    with warnings.catch_warnings():
        # anndata says that it writes names of cells that are not unique.
        warnings.simplefilter("ignore", UserWarning)
        adata.write_h5ad(path)
    run_id, out = run_of(trained_home, "logreg"), tmp_path / "results" / "here"
    words = ["--run", run_id, "--dataset", str(path), "--models", str(trained_home)]
    assert message in refusal(["evaluate", *words, "--out", str(out)], capsys)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "0" * 16], "There is no run"),
        (["--run", "../../runs"], "There is no run"),
        (["--dataset", "none.h5ad"], 'There is no file "none.h5ad"'),
        (["--dataset", "."], "is not a file"),
        (["--role", "kind=x"], "does not name a role"),
        (["--map", "T cells"], "is not LABEL=TYPE"),
        (["--map", "T cells=Nonsense"], "cannot output Nonsense"),
        (["--map", "Never=T"], "no label Never"),
    ],
)
def test_wrong_words_leave_nothing(trained_home, tmp_path, capsys, words, message):
    path = tmp_path / "new.h5ad"
    new_cells(60).write_h5ad(path)
    given = {
        "--run": run_of(trained_home, "logreg"),
        "--dataset": str(path),
        "--models": str(trained_home),
        "--out": str(tmp_path / "results"),
    }
    given |= {words[0]: words[1]}
    flat = [word for pair in given.items() for word in pair]
    assert message in refusal(["evaluate", *flat], capsys)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("verb", ["predict", "import-predictions"])
def test_results_that_cannot_be_written_are_refused_first(trained_home, tmp_path, capsys, verb):
    path, taken = tmp_path / "new.h5ad", tmp_path / "taken"
    new_cells(60).write_h5ad(path)
    taken.write_text("a file", encoding="utf-8")
    table = tmp_path / "table.csv"
    table.write_text("cell_id,label,predicted\na,B,T\n", encoding="utf-8")
    run_id = run_of(trained_home, "logreg")
    words = {
        "predict": ["--run", run_id, "--dataset", str(path), "--models", str(trained_home)],
        "import-predictions": [str(table)],
    }[verb]
    for out in (taken, taken / "below"):
        message = refusal([verb, *words, "--out", str(out)], capsys)
        assert message.startswith(f'Results cannot be written to "{out}"')
    assert sorted(tmp_path.iterdir()) == [path, table, taken]
    assert taken.read_text(encoding="utf-8") == "a file"
