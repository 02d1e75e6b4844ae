import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

from backend.data.fingerprint import cell_fingerprints
from backend.errors import InputError, SplitError
from backend.splits import (
    TEST,
    TRAIN,
    UNUSED,
    VALID,
    Split,
    is_within_budget,
    leakage_report,
    make_split,
    make_splits,
)

TYPES = np.array(["Mono", "T", "B", "HSC-like", "CLP"])


def cohort(n=3000, *, n_patients=13, n_healthy=3, n_studies=2, seed=0):
    """Cells of healthy donors and patients; every third patient relapses."""
    rng = np.random.default_rng(seed)
    donor = rng.integers(0, n_patients + n_healthy, n)
    is_healthy = donor < n_healthy
    relapses = ~is_healthy & (donor % 3 == 0) & (rng.random(n) < 0.4)
    frame = pd.DataFrame(
        {
            "cell_type_fine": TYPES[rng.choice(5, n, p=[0.4, 0.3, 0.2, 0.08, 0.02])],
            "timepoint": np.where(
                is_healthy, "Healthy", np.where(relapses, "Relapse", "Diagnosis")
            ),
            "donor": [f"D{d:02d}" for d in donor],
            "study": [f"S{d % n_studies}" for d in donor],
        },
        index=[f"cell{i}" for i in range(n)],
    )
    frame.loc[frame.index[:17], "cell_type_fine"] = None
    return frame


def split_of(cells, protocol, **options):
    return make_split(cells, protocol, dataset_id="0" * 16, **options)


@pytest.mark.parametrize("protocol", ["random", "donor", "study"])
@pytest.mark.parametrize("budget", ["full", "equal", "cap50"])
def test_every_cell_is_tested_exactly_once(protocol, budget):
    split = split_of(cohort(), protocol, budget=budget)
    assert ((split.roles == TEST).sum(axis=1) == 1).all()


def test_unlabelled_cells_never_train():
    cells = cohort()
    for protocol in ("random", "donor"):
        roles = split_of(cells, protocol).roles[cells["cell_type_fine"].isna()]
        assert set(np.unique(roles)) <= {UNUSED, TEST}


def test_split_by_donor_never_shares_a_donor():
    cells = cohort()
    split = split_of(cells, "donor")
    donors = cells["donor"].to_numpy()
    for fold in range(split.folds):
        train, valid, test = (set(donors[split.cells(fold, r)]) for r in (TRAIN, VALID, TEST))
        assert not train & test
        assert not valid & test
        assert not train & valid


def test_split_by_study_never_shares_a_study_and_has_a_fold_per_study():
    cells = cohort(n_studies=3)
    split = split_of(cells, "study", folds=5)
    assert split.folds == 3
    for fold in range(split.folds):
        train = set(cells["study"][split.cells(fold, TRAIN)])
        assert not train & set(cells["study"][split.cells(fold, TEST)])


def test_studies_with_a_common_donor_stay_together():
    cells = cohort(n_studies=3)
    both = cells["donor"] == "D05"
    cells.loc[cells.index[both][:10], "study"] = "S0"
    split = split_of(cells, "study")
    assert split.folds == 2
    assert leakage_report(split, cells).is_clean


@pytest.mark.parametrize(("folds", "shares"), [(5, (0.7, 0.1, 0.2)), (10, (0.8, 0.1, 0.1))])
def test_random_shares_follow_the_number_of_folds(folds, shares):
    cells = cohort().dropna()
    sizes = split_of(cells, "random", folds=folds, budget="full").sizes() / len(cells)
    np.testing.assert_allclose(sizes, np.tile(shares, (folds, 1)), atol=0.002)


def test_random_is_stratified():
    cells = cohort().dropna()
    split = split_of(cells, "random")
    by_fold = pd.crosstab(split.test_fold, cells["cell_type_fine"])
    assert (by_fold.max() - by_fold.min()).max() <= 4


def test_equal_budget_trains_on_equally_many_cells_in_each_fold():
    splits = make_splits(cohort(), dataset_id="0" * 16)
    random, donor = (splits[p].sizes()["train"] for p in ("random", "donor"))
    assert random.tolist() == donor.tolist()
    assert split_of(cohort(), "random").sha256 == splits["random"].sha256


def test_cap_limits_training_cells_of_each_donor():
    cells = cohort()
    split = split_of(cells, "donor", budget="cap50")
    for fold in range(split.folds):
        assert cells["donor"][split.cells(fold, TRAIN)].value_counts().max() <= 50


def test_a_fit_without_test_cells_keeps_to_the_cap():
    cells = cohort().dropna(subset=["cell_type_fine"])
    chosen = is_within_budget(cells, "cap50", seed=3)
    sizes, all_sizes = (part["donor"].value_counts() for part in (cells[chosen], cells))
    pd.testing.assert_series_equal(sizes.sort_index(), all_sizes.clip(upper=50).sort_index())
    # In proportion to types and timepoints: no stratum of a donor is off by more than one cell.
    strata = ["donor", "cell_type_fine", "timepoint"]
    wanted = cells.groupby(strata).size().mul(50).div(all_sizes, level="donor")
    found = cells[chosen].groupby(strata).size().reindex(wanted.index, fill_value=0)
    assert (found - wanted).abs().max() < 1 + 1e-9
    assert (chosen == is_within_budget(cells, "cap50", seed=3)).all()
    assert is_within_budget(cells, "equal").all()


def test_valid_takes_no_donor_from_a_timepoint_with_few():
    cells = cohort()
    split = split_of(cells, "donor")
    for fold in range(split.folds):
        assert "Healthy" not in set(cells["timepoint"][split.cells(fold, VALID)])
        assert split.cells(fold, VALID).any()
    assert any("no validation donor from Healthy" in text for text in split.warnings)


def test_fewer_donors_than_folds_is_warned_and_coverage_lists_the_gap():
    split = split_of(cohort(), "donor")
    assert any("Healthy has 3 donors for 5 folds" in text for text in split.warnings)
    no_healthy_test = split.coverage.query("role == 'test' and timepoint == 'Healthy'")
    assert no_healthy_test["fold"].nunique() >= 2


def test_a_type_of_one_donor_is_allowed_and_listed():
    cells = cohort()
    cells.loc[cells["cell_type_fine"] == "CLP", "cell_type_fine"] = "B"
    cells.loc[cells.index[cells["donor"] == "D07"][20:60], "cell_type_fine"] = "CLP"
    split = split_of(cells, "donor")
    lost = split.coverage.query("role == 'train' and cell_type == 'CLP'")
    assert len(lost["fold"].unique()) == 1


def test_donors_are_spread_better_than_by_a_plain_shuffle():
    cells = cohort(6000, n_patients=24, n_healthy=6)
    split = split_of(cells, "donor")
    sizes = split.sizes()["test"]
    assert sizes.max() / sizes.min() < 1.5


def test_same_seed_same_hash_and_other_seed_other_hash():
    cells = cohort()
    assert split_of(cells, "donor", seed=3).sha256 == split_of(cells, "donor", seed=3).sha256
    assert split_of(cells, "donor", seed=3).sha256 != split_of(cells, "donor", seed=4).sha256


def test_save_and_load_keep_everything(tmp_path):
    split = split_of(cohort(), "donor")
    split.save(tmp_path / "donor.parquet")
    loaded = Split.load(tmp_path / "donor.parquet")
    assert loaded.sha256 == split.sha256
    assert loaded.warnings == split.warnings
    pd.testing.assert_frame_equal(loaded.coverage, split.coverage)
    np.testing.assert_array_equal(loaded.roles, split.roles)


def test_a_changed_file_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "donor.parquet"
    split_of(cohort(), "donor").save(path)
    table = pq.read_table(path)
    roles = table["fold_0"].to_numpy().copy()
    roles[roles == TEST] = TRAIN
    pq.write_table(table.set_column(1, "fold_0", pa.array(roles)), path)
    with pytest.raises(SplitError, match="changed after it was frozen"):
        Split.load(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(SplitError, match="cannot be read"):
        Split.load(path)


@pytest.mark.parametrize(
    ("change", "protocol", "message"),
    [
        (lambda c: c.assign(donor="P1"), "donor", "one donor"),
        (
            lambda c: c[(c["timepoint"] != "Healthy") | (c["donor"] == "D00")],
            "donor",
            "only 1 donor",
        ),
        (lambda c: c.assign(study="S1"), "study", "needs 2 studies"),
        (lambda c: c.assign(study=None), "study", "have no study"),
        (lambda c: c.assign(donor=c["donor"].where(c["donor"] != "D01")), "donor", "have no donor"),
        (lambda c: c.assign(cell_type_fine=None), "random", "No cell has a label"),
        (lambda c: c.drop(columns="donor"), "random", 'no column "donor"'),
        (lambda c: pd.concat([c, c.iloc[:2]]), "random", "more than once"),
    ],
)
def test_what_cannot_be_split_is_refused(change, protocol, message):
    with pytest.raises((SplitError, InputError), match=message):
        split_of(change(cohort()), protocol)


@pytest.mark.parametrize("budget", ["cap0", "half", "cap", "equal "])
def test_unknown_budget_is_refused(budget):
    with pytest.raises(InputError, match="`budget` is"):
        split_of(cohort(), "random", budget=budget)


def test_random_works_on_one_donor_and_says_that_sizes_differ():
    split = split_of(cohort().assign(donor="P1"), "random")
    assert any("not made equal" in text for text in split.warnings)


def test_fit_on_test_cells_is_refused_and_reported():
    cells = cohort()
    split = split_of(cells, "random")
    test_ids = split.cell_ids[split.cells(1, TEST)]
    split.check_fit_cells(1, split.cell_ids[split.cells(1, TRAIN)])
    with pytest.raises(SplitError, match="1 test cells of fold 1"):
        split.check_fit_cells(1, test_ids[:1])
    report = leakage_report(split, cells, fitted={1: test_ids[:5]})
    assert report.fitted_on_test == (5,)
    assert not report.is_clean


def counts_of(n, *, seed=0):
    rng = np.random.default_rng(seed)
    X = sparse.csr_matrix(rng.poisson(0.4, (n, 60)).astype(np.float32))
    return ad.AnnData(X, var=pd.DataFrame(index=[f"G{i}" for i in range(60)]))


def test_duplicated_cells_are_found_across_roles():
    cells = cohort(400)
    adata = counts_of(400)
    split = split_of(cells, "random")
    tested = np.flatnonzero(split.cells(0, TEST))[0]
    trained = np.flatnonzero(split.cells(0, TRAIN))[0]
    X = adata.X.tolil()
    X[tested] = X[trained]
    adata.X = X.tocsr()
    report = leakage_report(split, cells, fingerprints=cell_fingerprints(adata))
    assert report.n_duplicates[0] == 1
    assert report.duplicate_examples[0] == split.cell_ids[tested]
    assert not report.is_clean
    assert "repeat the counts" in " ".join(report.sentences())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_fingerprints_ignore_gene_order_and_see_every_count(seed):
    adata = counts_of(30, seed=seed)
    rng = np.random.default_rng(seed)
    np.testing.assert_array_equal(
        cell_fingerprints(adata), cell_fingerprints(adata[:, rng.permutation(60)].copy())
    )
    changed = adata.X.tolil()
    changed[4, 7] = changed[4, 7] + 1
    different = cell_fingerprints(ad.AnnData(changed.tocsr(), var=adata.var))
    assert (different != cell_fingerprints(adata)).nonzero()[0].tolist() == [4]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), folds=st.integers(2, 8), n_patients=st.integers(3, 20))
def test_any_cohort_keeps_the_rules(seed, folds, n_patients):
    cells = cohort(600, n_patients=n_patients, seed=seed)
    assume(cells.groupby("timepoint")["donor"].nunique().min() >= 2)
    splits = make_splits(cells, dataset_id="0" * 16, folds=folds, seed=seed)
    for split in splits.values():
        assert ((split.roles == TEST).sum(axis=1) == 1).all()
        assert (split.sizes()["train"] > 0).all()
    assert not any(leakage_report(splits["donor"], cells).donor_overlap)
