import pickle

import numpy as np
import pytest
from sklearn.metrics import f1_score

from backend.errors import InputError
from backend.evaluation import views
from backend.evaluation.metrics import METRICS
from backend.types import Scope
from tests.helpers import draw_cells, open_store, write_results

TIMEPOINTS = ("Healthy", "Diagnosis", "Post-treatment", "Relapse")


def sklearn_f1(results, key, cells, **options):
    """Score predictions with scikit-learn on the labelled ones among `cells`."""
    keep = cells & results.cells["cell_type_lineage"].notna()
    label = results.cells["cell_type_lineage"][keep]
    return f1_score(label, results.predicted[key][keep], zero_division=0, **options)


def at(results, timepoint):
    return results.cells["timepoint"] == timepoint


def row_of(table, **values):
    for column, value in values.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_macro_f1_by_timepoint_equals_scikit_learn_per_seed_averaged(store, results):
    view = views.scores_by_timepoint(store, results.scope())
    for timepoint in TIMEPOINTS:
        per_seed = [
            sklearn_f1(
                results,
                ("logreg", "donor", seed),
                at(results, timepoint),
                labels=view.panel.types,
                average="macro",
            )
            for seed in (0, 1)
        ]
        row = row_of(view.scores, configuration="logreg", timepoint=timepoint)
        assert row["value"] == pytest.approx(np.mean(per_seed))
        assert row["low"] < row["value"] < row["high"]
        assert row["n_seeds"] == 2
        labelled = results.cells[at(results, timepoint)].dropna(subset=["cell_type_lineage"])
        assert row["n_cells"] == len(labelled)
        assert row["n_donors"] == labelled["donor"].nunique()
        assert row["n_types_scored"] == len(view.panel.types) == 6
        assert row["n_types"] == 7


def test_every_seed_of_every_donor_is_a_dot(store, results):
    donors = views.scores_by_timepoint(store, results.scope()).donors
    logreg = donors[donors["configuration"] == "logreg"]
    assert logreg.groupby(["timepoint", "seed"]).size().unstack().loc["Diagnosis"].tolist() == [
        12,
        12,
    ]
    dot = row_of(logreg, timepoint="Relapse", donor="AML03", seed=1)
    cells = at(results, "Relapse") & (results.cells["donor"] == "AML03")
    types = set(results.cells["cell_type_lineage"][cells].dropna()) - {"CLP"}
    expected = sklearn_f1(
        results, ("logreg", "donor", 1), cells, labels=sorted(types), average="macro"
    )
    assert dot["value"] == pytest.approx(expected)
    assert dot["n_types"] == len(types)


def test_patients_at_two_timepoints_are_one_cluster_of_the_difference(store, results):
    differences = views.scores_by_timepoint(
        store, results.scope(timepoints=("Post-treatment", "Relapse"))
    ).differences
    row = row_of(differences, configuration="logreg")
    scores = views.scores_by_timepoint(
        store, results.scope(timepoints=("Post-treatment", "Relapse"))
    ).scores
    one, other = (row_of(scores, configuration="logreg", timepoint=t) for t in TIMEPOINTS[2:])
    assert row["reference"] == "Post-treatment"
    assert row["difference"] == pytest.approx(other["value"] - one["value"])
    assert row["high"] < 0
    assert row["n_donors"] == 6


def test_a_failed_fold_leaves_no_headline_number(store, results):
    scope = results.scope()
    view = views.scores_by_timepoint(store, scope)
    rows = view.scores[view.scores["configuration"] == "hgb"]
    assert rows["value"].isna().all()
    assert set(rows["status_text"]) == {"4 of 5 folds, 1 failed"}
    assert "hgb" not in set(view.donors["configuration"])
    series = row_of(views.series_table(store, scope), configuration="hgb")
    assert (series["n_folds"], series["n_folds_done"], series["n_folds_failed"]) == (5, 4, 1)
    assert series["status_text"] == "4 of 5 folds"
    assert "ran out of memory" in series["notes"]
    assert not series["is_complete"]
    assert "hgb" not in set(views.f1_by_cell_type(store, scope).scores["configuration"])
    assert views.scores_by_donor(store, scope, "hgb").scores.empty
    notes = views.optimism(store, scope).notes
    assert any("Gradient boosting" in note for note in notes), notes


def test_f1_by_cell_type_equals_scikit_learn(store, results):
    view = views.f1_by_cell_type(store, results.scope(protocol="random"))
    types = sorted(set(view.scores["cell_type"]))
    everything = np.ones(len(results.cells), dtype=bool)
    expected = sklearn_f1(results, ("hgb", "random", 0), everything, labels=types, average=None)
    found = view.scores[view.scores["configuration"] == "hgb"].set_index("cell_type")["f1"]
    assert found[types].to_numpy() == pytest.approx(expected)
    worst = view.scores.groupby("cell_type")["f1"].mean()
    assert list(view.scores["cell_type"].unique()) == list(worst.sort_values().index)


def test_types_that_are_lost_are_named(store, results):
    view = views.f1_by_cell_type(store, results.scope())
    assert set(view.never_predicted["configuration"]) == {"majority"}
    assert len(view.never_predicted) == 6
    assert view.zero_f1.empty
    by_time = views.f1_by_cell_type(store, results.scope(), by="timepoint", configuration="logreg")
    clp = row_of(by_time.scores, cell_type="CLP", column="Relapse")
    assert clp["is_small"]
    assert clp["interval"] == "none"
    assert list(by_time.scores["column"].unique()) == list(TIMEPOINTS)
    with pytest.raises(InputError, match="none is chosen"):
        views.f1_by_cell_type(store, results.scope(), by="timepoint")


def test_a_type_without_label_in_a_slice_has_no_f1_but_its_predictions_are_counted(tmp_path):
    cells = draw_cells(samples={"Healthy": 5, "Relapse": 5}, cells_per_sample=60)
    gone = (cells["timepoint"] == "Healthy") & (cells["cell_type_lineage"] == "NK")
    cells.loc[gone, ["cell_type_lineage", "cell_type_fine"]] = None
    results = write_results(tmp_path, cells=cells, protocols=("donor",), failed=(), fine=())
    with open_store(tmp_path) as store:
        view = views.f1_by_cell_type(store, results.scope(), by="timepoint", configuration="hgb")
        panel = views.scores_by_timepoint(store, results.scope()).panel
    nk = row_of(view.scores, cell_type="NK", column="Healthy")
    assert np.isnan(nk["f1"])
    assert nk["n_cells"] == 0
    labelled = (cells["timepoint"] == "Healthy") & cells["cell_type_lineage"].notna()
    predicted = results.predicted["hgb", "donor", 0][labelled]
    assert nk["n_predicted_absent"] == (predicted == "NK").sum() > 0
    assert row_of(view.scores, cell_type="NK", column="Relapse")["n_predicted_absent"] == 0
    assert panel.excluded["NK"] == "no cell at Healthy"


def test_timepoints_without_cells_are_listed_and_few_donors_are_dots(small_store, small):
    view = views.scores_by_timepoint(small_store, small.scope())
    assert view.missing == ("Post-treatment",)
    relapse = row_of(view.scores, timepoint="Relapse")
    assert np.isnan(relapse["value"])
    assert relapse["reason"].startswith("2 donors: shown as dots")
    assert (view.donors["timepoint"] == "Relapse").sum() == 2
    assert view.donors["value"].notna().all()
    assert view.panel.slices == ("Healthy", "Diagnosis")
    healthy = row_of(view.scores, timepoint="Healthy")
    assert healthy["interval"] == "none"
    assert healthy["value"] > 0
    difference = row_of(view.differences, timepoint="Diagnosis")
    assert difference["interval"] == "none"
    assert difference["reason"] == "3 donors at Healthy: no interval below 5"


def test_the_overview_of_real_data_names_sources_and_the_random_forest(small_store, small):
    view = views.overview(small_store, small.scope())
    (sentence,) = view.sentences
    assert sentence.startswith("`logreg`: macro-F1 Healthy 0.")
    assert "too few Healthy donors to test" in sentence
    assert "Relapse has 2 donors, shown as dots only." in sentence
    assert "Label sources differ: Healthy from clustering;" in sentence
    caution = "F1 here is agreement with a random forest"
    assert caution in view.provenance.cautions[0]
    assert caution in view.provenance.label_sources
    assert not view.provenance.simulated
    assert view.not_labelled == ("Pre-B",)
    healthy = views.provenance(small_store, small.scope(timepoints=("Healthy",)))
    assert healthy.cautions == ()
    assert views.provenance(small_store, small.scope(truth="clustering")).cautions == ()


def test_the_overview_of_a_simulation_says_so_in_every_sentence(store, results):
    view = views.overview(store, results.scope())
    assert [text.split("`")[1] for text in view.sentences] == ["hgb", "logreg", "majority"]
    assert all("on *simulated* data" in text for text in view.sentences)
    assert "Relapse loses 0." in view.sentences[1]
    assert "loses" not in view.sentences[2]
    assert "majority" not in set(view.collapsed["configuration"])
    assert set(view.collapsed["kind"]) <= {"never predicted", "F1 0", "F1 below 0.2"}
    assert "CLP" in set(view.collapsed["cell_type"])
    assert view.provenance.n_donors == 18


def test_the_fine_level_compares_normal_types_only_with_healthy_donors(store, results):
    view = views.overview(store, results.scope(label_level="fine"))
    assert view.panel.is_normal_only
    assert "normal types only" in view.sentences[0]
    assert any("normal types only" in note for note in view.notes)
    assert view.panel.excluded["Mono-like"] == "no cell at Healthy"
    later = results.scope(label_level="fine", timepoints=("Diagnosis", "Relapse"))
    assert "Mono-like" in views.overview(store, later).panel.types


def test_a_fine_series_is_offered_at_the_lineage_level_under_its_own_name(store, results):
    choices = views.configurations(store, results.scope())
    row = row_of(choices, configuration="logreg@fine")
    assert not row["is_default"]
    assert row["display_name"].endswith("(trained on fine labels)")
    scores = views.scores_by_timepoint(
        store, results.scope(configurations=("logreg@fine", "logreg"))
    ).scores
    assert set(scores["configuration"]) == {"logreg@fine", "logreg"}
    assert scores["value"].notna().all()
    fine = views.configurations(store, results.scope(label_level="fine"))
    assert list(fine["configuration"]) == ["logreg"]


def test_scope_choices_name_what_exists(store, results):
    choices = views.scope_choices(store, "local")
    assert set(map(tuple, choices[["label_level", "protocol", "budget"]].to_numpy())) == {
        (level, protocol, "equal")
        for level in ("fine", "lineage")
        for protocol in ("donor", "random")
    }
    assert set(choices["dataset_id"]) == {results.dataset_id}


@pytest.mark.parametrize("truth", ["clustering", "mutant"])
def test_the_truth_switch_scores_other_cells(store, results, truth):
    cells = results.cells
    chosen = (cells["label_source"] == truth) | (cells["genotype"] == truth)
    view = views.scores_by_timepoint(store, results.scope(truth=truth))
    labelled = cells[chosen].dropna(subset=["cell_type_lineage"])
    expected = labelled.groupby("timepoint").size()
    found = view.scores[view.scores["configuration"] == "logreg"].set_index("timepoint")["n_cells"]
    assert found.to_dict() == expected.to_dict()
    assert set(view.missing) == set(TIMEPOINTS) - set(expected.index)


def test_donors_have_their_own_scores_and_compositions(store, results):
    view = views.scores_by_donor(store, results.scope(), "logreg")
    row = row_of(view.totals, donor="AML02", timepoint="Relapse")
    dots = views.scores_by_timepoint(store, results.scope(configurations=("logreg",))).donors
    dots = dots[(dots["donor"] == "AML02") & (dots["timepoint"] == "Relapse")]
    assert row["value"] == pytest.approx(dots["value"].mean())
    assert (view.scores["is_small"] == (view.scores["n_cells"] < 20)).all()
    shares = view.composition.groupby(["donor", "timepoint"])[
        ["labelled_share", "predicted_share", "difference"]
    ].sum()
    assert np.allclose(shares["labelled_share"], 1)
    assert np.allclose(shares["predicted_share"], 1)
    assert np.allclose(shares["difference"], 0)


def test_the_optimism_gap_is_random_minus_donor_on_one_panel(store, results):
    view = views.optimism(store, results.scope(protocol="random"))
    row = row_of(view.gaps, configuration="logreg")
    everything = np.ones(len(results.cells), dtype=bool)
    expected = {
        protocol: np.mean(
            [
                sklearn_f1(
                    results,
                    ("logreg", protocol, seed),
                    everything,
                    labels=view.panel.types,
                    average="macro",
                )
                for seed in (0, 1)
            ]
        )
        for protocol in ("random", "donor")
    }
    assert row["random"] == pytest.approx(expected["random"])
    assert row["donor"] == pytest.approx(expected["donor"])
    assert row["gap"] == pytest.approx(expected["random"] - expected["donor"])
    assert 0 < row["low"] < row["gap"] < row["high"]
    assert (row["n_train_random"], row["n_train_donor"]) == (1000, 1000)
    assert row["n_seeds"] == 2
    by_type = view.by_type[view.by_type["configuration"] == "logreg"]
    assert by_type["gap"].mean() == pytest.approx(row["gap"])
    assert "Not tested both on known patients and on new patients" in view.notes[0]
    assert any("no complete study-held-out series" in note for note in view.notes)
    assert view.sentences[0].startswith("`logreg` on *simulated* data: macro-F1 0.")


def test_one_study_has_no_study_gap(small_store, small):
    view = views.optimism(small_store, small.scope())
    assert view.gaps.empty
    assert "Study gap: one study: not measurable here." in view.notes


def test_the_study_gap_stands_apart(tmp_path):
    results = write_results(
        tmp_path,
        cells=draw_cells(samples={"Diagnosis": 12}, cells_per_sample=60, n_studies=3),
        protocols=("random", "donor", "study"),
        models={"logreg": ("Logistic regression", (0,))},
        fine=(),
    )
    with open_store(tmp_path) as store:
        # Three studies give three folds, so the study series is a configuration of its own split.
        view = views.optimism(store, results.scope())
    row = row_of(view.others["study"], configuration="logreg")
    assert row["gap"] == pytest.approx(row["donor"] - row["study"])
    assert view.gaps["study"].iloc[0] == pytest.approx(row["study"])
    assert any("studies are fixed" in note for note in view.notes)


def test_models_are_compared_with_a_named_reference_on_the_same_donors(store, results):
    view = views.model_differences(store, results.scope(), "logreg")
    scores = views.scores_by_timepoint(store, results.scope()).scores
    for timepoint in TIMEPOINTS:
        row = row_of(view.differences, configuration="majority", timepoint=timepoint)
        one, other = (
            row_of(scores, configuration=name, timepoint=timepoint)["value"]
            for name in ("majority", "logreg")
        )
        assert row["difference"] == pytest.approx(one - other)
        assert row["high"] < 0


def test_a_chosen_type_narrows_the_panel_but_not_the_wrong_predictions(store, results):
    view = views.scores_by_timepoint(
        store, results.scope(cell_types=("HSC", "B"), configurations=("majority", "logreg"))
    )
    assert view.panel.types == ("B", "HSC")
    row = row_of(view.scores, configuration="logreg", timepoint="Diagnosis")
    per_seed = [
        sklearn_f1(
            results,
            ("logreg", "donor", seed),
            at(results, "Diagnosis"),
            labels=["B", "HSC"],
            average="macro",
        )
        for seed in (0, 1)
    ]
    assert row["value"] == pytest.approx(np.mean(per_seed))


def test_a_dataset_without_timepoints_is_one_slice(tmp_path):
    cells = draw_cells(samples={"Diagnosis": 8}, cells_per_sample=60).assign(timepoint=None)
    results = write_results(
        tmp_path, cells=cells, protocols=("donor",), models={"logreg": ("LR", (0,))}, fine=()
    )
    with open_store(tmp_path) as store:
        view = views.scores_by_timepoint(store, results.scope())
        donors = views.scores_by_donor(store, results.scope(), "logreg")
        sentences = views.overview(store, results.scope()).sentences
    assert view.scores["timepoint"].tolist() == ["No timepoint"]
    assert view.scores["value"].notna().all()
    assert view.missing == ()
    assert set(donors.composition["timepoint"]) == {"No timepoint"}
    assert "macro-F1 0." in sentences[0]


def test_nothing_in_scope_gives_empty_tables(store, results):
    scope = results.scope(protocol="study")
    assert views.series_table(store, scope).empty
    assert views.scores_by_timepoint(store, scope).scores.empty
    assert views.overview(store, scope).sentences == ()
    assert views.f1_by_cell_type(store, scope).scores.empty
    nowhere = results.scope(truth="mutant", timepoints=("Healthy",))
    assert views.scores_by_timepoint(store, nowhere).missing == ("Healthy",)
    assert views.f1_by_cell_type(store, nowhere).scores["n_cells"].sum() == 0
    assert views.optimism(store, nowhere).by_type.empty


@pytest.mark.parametrize("key", METRICS)
def test_every_view_of_a_metric_names_it_and_takes_any(store, results, key):
    scope, word = results.scope(), METRICS[key].label
    first = views.overview(store, scope, metric=key)
    assert f"`logreg` on *simulated* data: {word} " in "\n".join(first.sentences)
    by_time = views.scores_by_timepoint(store, scope, metric=key)
    tables = [first.scores, by_time.scores, by_time.donors, by_time.differences]
    tables.append(views.model_differences(store, scope, "majority", metric=key).differences)
    tables.append(views.scores_by_donor(store, scope, "logreg", metric=key).totals)
    gaps = views.optimism(store, scope, metric=key)
    assert f": {word} " in gaps.sentences[0]
    for table in (*tables, gaps.gaps):
        assert set(table["metric"]) == {key}
    assert by_time.scores["value"].dropna().between(*METRICS[key].range).all()
    row = row_of(by_time.scores, configuration="logreg", timepoint="Diagnosis")
    assert row["low"] < row["value"] < row["high"]


def test_accuracy_by_timepoint_is_that_of_the_cells_of_the_panel(store, results):
    scope = results.scope(protocol="random")
    view = views.scores_by_timepoint(store, scope, metric="accuracy")
    row = row_of(view.scores, configuration="hgb", timepoint="Relapse")
    cells = results.cells
    keep = (cells["timepoint"] == "Relapse") & cells["cell_type_lineage"].isin(view.panel.types)
    predicted = results.predicted["hgb", "random", 0]
    expected = (cells["cell_type_lineage"][keep] == predicted[keep]).mean()
    assert row["value"] == pytest.approx(expected)


def test_what_is_not_there_is_refused_by_name(store, results):
    with pytest.raises(InputError, match='No dataset "0000000000000000"'):
        views.overview(store, Scope(dataset_id="0000000000000000"))
    with pytest.raises(InputError, match=r'No series "nix".*Found: hgb, logreg'):
        views.scores_by_donor(store, results.scope(), "nix")
    with pytest.raises(InputError, match='no metric "nix"'):
        views.scores_by_timepoint(store, results.scope(), metric="nix")


@pytest.mark.parametrize("name", ["overview", "scores_by_timepoint", "f1_by_cell_type", "optimism"])
def test_results_can_be_cached_by_pickling(store, results, name):
    assert pickle.loads(pickle.dumps(getattr(views, name)(store, results.scope())))  # noqa: TID251
