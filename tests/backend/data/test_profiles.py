"""Known data sets: recognised by columns and words, and read as their authors mean them."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pandas as pd
import pytest

from app.components.palette import type_colours
from backend.cli import main
from backend.data.check import check
from backend.data.dataset import describe
from backend.data.h5ad import load, read_chunks
from backend.data.inspect_upload import inspect_upload
from backend.data.labels import chart_order, family
from backend.data.profiles import PROFILES, profile_of_source
from backend.data.profiles.ennis2023 import LABELS_FINAL, LABELS_RAW
from backend.data.roles import Roles, parse_roles
from backend.data.vocabularies import counterpart
from backend.errors import InputError
from tests.backend.data.ennis import LABELS_19, LABELS_24, as_cellxgene, build_atlas, write_old

N_LABELS = {24: 24, 19: 19}


@pytest.fixture(scope="module", params=[24, 19])
def stage(request):
    return request.param


@pytest.fixture(scope="module")
def atlas(stage, tmp_path_factory):
    path = tmp_path_factory.mktemp("atlas") / "bone_marrow.h5ad"
    return write_old(build_atlas(stage=stage), path)


@pytest.fixture
def clean(tmp_path):
    return write_old(build_atlas(stage=19), tmp_path / "clean.h5ad")


def of_sample(obs, sample, column):
    (value,) = obs.loc[obs["sample"] == sample, column].unique()
    return value


def only_problem(path, **options):
    full, quick = check(path, **options), check(path, quick=True, **options)
    assert full.problems == quick.problems
    (problem,) = full.problems
    return problem


def test_both_stages_are_recognised(atlas, stage):
    report = check(atlas)
    assert report.is_usable, report.problems
    facts = report.facts
    assert facts["profile"] == "ennis2023"
    assert facts["counts"] == "layers/counts"
    assert facts["n_cell_types"] == N_LABELS[stage]
    assert facts["n_studies"] == 5
    assert facts["roles"] == {
        "cell_type": {24: "celltype", 19: "celltype_final"}[stage],
        "donor": "donor",
        "timepoint": {24: "timepoint", 19: "tp"}[stage],
        "study": "dataset",
        "sample": "sample",
    }


def test_quick_and_whole_reading_agree(atlas):
    whole = load(atlas)
    pieces = pd.concat([chunk.obs for chunk in read_chunks(atlas, size=50)])
    assert pieces["donor"].astype(str).tolist() == whole.obs["donor"].astype(str).tolist()
    assert whole.uns["faultline"]["source"] == "Zenodo 5931689"
    assert float(whole.X.max()) == round(float(whole.X.max()))
    assert describe(whole).name == "Ennis 2023"


def test_timepoints_follow_the_authors(atlas):
    obs = load(atlas).obs
    expected = {
        "AML1_DG": "Diagnosis", "AML1_R": "Relapse", "AML2_MRD": "Post-treatment",
        "508084": "Diagnosis", "A": "Healthy", "AML328-D0": "Diagnosis",
        "AML328-D171": "Post-treatment", "BM5-34p": "Healthy",
    }  # fmt: skip
    assert {name: of_sample(obs, name, "timepoint") for name in expected} == expected
    assert of_sample(obs, "AML328-D171", "day") == 171
    assert of_sample(obs, "AML328-D0", "day") == 0
    assert obs["day"].isna().sum() == (~obs["sample"].str.contains("AML328")).sum()


def test_missing_timepoints_are_listed_and_asked_for(atlas, stage):
    n = N_LABELS[stage]
    report = check(atlas)
    (note,) = [note for note in report.notes if "no timepoint" in note]
    assert f"{2 * n:,} cells" in note
    assert f"Normal_1 (Petti 2019) {n}" in note
    assert "--timepoint" in note
    one = load(atlas, parse_roles([], ["Normal_1=Healthy"])).obs
    assert of_sample(one, "Normal_1", "timepoint") == "Healthy"
    assert one["timepoint"].isna().sum() == n
    every = load(atlas, parse_roles([], ["missing=Healthy", "D171=Relapse"])).obs
    assert not every["timepoint"].isna().any()
    assert of_sample(every, "AML328-D171", "timepoint") == "Relapse"


def test_a_page_asks_for_the_missing_timepoints_only(atlas, stage):
    found = inspect_upload(atlas)
    assert found["timepoints"]["missing"] == 2 * N_LABELS[stage]
    assert set(found["timepoints"]) - set(found["facts"]["timepoint_words"]) == {"missing"}
    (column,) = [column for column in found["columns"] if column["name"] == "dataset"]
    assert column["n_values"] == 5 + 1
    given = {**found["facts"]["roles"], "timepoints": {"missing": "Healthy"}}
    assert sum(inspect_upload(atlas, roles=given)["facts"]["timepoints"].values()) == (
        12 * N_LABELS[stage]
    )


def test_a_timepoint_that_nobody_knows_is_asked_for(tmp_path):
    adata = build_atlas()
    adata.obs["timepoint"] = adata.obs["timepoint"].cat.rename_categories({"D171": "PDX"})
    report = check(write_old(adata, tmp_path / "odd.h5ad"))
    assert any("not known count as missing: PDX" in note for note in report.notes)


def test_donors_are_unique_per_study(atlas):
    obs = load(atlas).obs
    pairs = obs[["donor", "study"]].drop_duplicates()
    assert not pairs["donor"].duplicated().any()
    assert len(pairs) == 10
    assert of_sample(obs, "AML1_DG", "donor") == of_sample(obs, "AML1_R", "donor") == "Ennis 2023 1"
    assert of_sample(obs, "508084", "donor") == "Petti 2019 1"
    # As the reader of that study names them, so that a model's training donors are known again.
    assert of_sample(obs, "AML328-D0", "donor") == "AML328"
    assert of_sample(obs, "AML328-D0", "study") == "van Galen 2019"


def test_labels_say_where_they_come_from(atlas):
    obs = load(atlas).obs
    is_reference = obs["study"] == "Granja 2019"
    assert (obs.loc[is_reference, "label_source"] == "clustering").all()
    assert (obs.loc[~is_reference, "label_source"] == "classifier").all()
    is_healthy = (obs["timepoint"] == "Healthy").to_numpy()
    assert obs["is_malignant"].isna().to_numpy().tolist() == (~is_healthy).tolist()


def test_sorted_samples_are_marked(atlas):
    obs = load(atlas).obs
    marked = set(obs.loc[obs["sort"].notna(), "sample"])
    assert marked == {"CD34_D2T1", "Normal_sorted_170531", "BM5-34p"}
    assert any("sorted before sequencing" in note for note in check(atlas, quick=True).notes)


def test_every_label_has_family_colour_and_term():
    ontology = pytest.importorskip("cellxgene_ontology_guide.ontology_parser").OntologyParser()
    assert (set(LABELS_RAW), set(LABELS_FINAL)) == (set(LABELS_24), set(LABELS_19))
    for label in (*LABELS_RAW, *LABELS_FINAL):
        found = counterpart(label)
        assert found.source == "Ennis 2023"
        assert not ontology.is_term_deprecated(found.term)
        assert ontology.get_term_label(found.term)
    assert ontology.get_term_label(counterpart("Pre.B").term) == "precursor B cell"


@pytest.mark.parametrize("labels", [LABELS_24, LABELS_19], ids=["24", "19"])
def test_charts_know_every_label(labels):
    assert [name for name in labels if family(name) == "Other"] == []
    colours = type_colours({name: family(name) for name in labels})
    assert len(set(colours.values())) == len(labels)
    ordered = sorted(labels, key=chart_order)
    assert ordered.index("Pre.B") < ordered.index("B") < ordered.index("Plasma")


def test_a_persons_columns_win(clean):
    roles = Roles(cell_type="celltype", donor="sample", study="", label_source="")
    report = check(clean, roles=roles)
    assert report.is_usable
    assert report.facts["n_cell_types"] == 19
    assert report.facts["n_donors"] == 12
    assert report.facts["n_studies"] is None


def test_without_the_profile_it_is_any_file(clean):
    obs = load(clean, parse_roles(["profile="], [])).obs
    assert of_sample(obs, "AML1_DG", "donor") == "1"
    assert set(obs["label_source"]) == {"unknown"}


def test_a_profile_can_be_asked_for(clean, upload, saved):
    assert check(clean, roles=Roles(profile="ennis2023")).is_usable
    assert only_problem(saved(upload), roles=Roles(profile="ennis2023")).code == "profile"
    problem = only_problem(clean, roles=Roles(profile="vangalen2019"))
    assert "ennis2023" in problem.hint


def test_other_words_in_the_same_columns_are_another_file(tmp_path):
    adata = build_atlas()
    adata.obs["dataset"] = adata.obs["dataset"].cat.rename_categories({"petti": "ours"})
    path = tmp_path / "other.h5ad"
    adata.write_h5ad(path)
    assert check(path).facts["profile"] is None


# CELLxGENE's form.


def test_cellxgene_form_by_its_title(saved):
    report = check(saved(as_cellxgene(build_atlas(stage=19))))
    assert report.is_usable, report.problems
    assert report.facts["profile"] == "ennis2023"
    assert report.facts["counts"] == "raw/X"
    assert report.facts["n_genes_matched"] == 30
    roles = report.facts["roles"]
    assert (roles["cell_type"], roles["donor"], roles["timepoint"]) == (
        "cell_type", "donor_id", "disease",
    )  # fmt: skip
    assert set(report.facts["timepoints"]) == {"Healthy"}
    assert any("acute myeloid leukemia" in note for note in report.notes)


def test_cellxgene_form_without_studies_says_what_it_knows_of_labels(saved):
    obs = load(saved(as_cellxgene(build_atlas(stage=19)))).obs
    is_healthy = obs["timepoint"] == "Healthy"
    assert set(obs.loc[is_healthy, "label_source"]) == {"unknown"}
    assert set(obs.loc[~is_healthy, "label_source"]) == {"classifier"}


def test_cellxgene_form_with_the_authors_columns_is_read_by_them(saved):
    keep = ("dataset", "sample", "celltype_final", "tp")
    obs = load(saved(as_cellxgene(build_atlas(stage=19), keep=keep))).obs
    assert obs["cell_type_fine"].nunique() == 19
    assert of_sample(obs, "AML1_R", "timepoint") == "Relapse"
    assert of_sample(obs, "508084", "donor") == "Petti 2019 1"


# What cannot be used.


@pytest.mark.parametrize("form", ["authors", "cellxgene"])
def test_without_counts_the_layer_is_named(tmp_path, form):
    adata = build_atlas(stage=19)
    if form == "cellxgene":
        adata = as_cellxgene(adata)
        adata.raw = None
    else:
        del adata.layers["counts"]
    path = tmp_path / "no_counts.h5ad"
    adata.write_h5ad(path)
    problem = only_problem(path)
    assert problem.code == "log_normalised"
    assert "scran" in problem.message
    assert 'layers["counts"]' in problem.message
    assert 'layers["counts"]' in problem.hint


def test_a_layer_without_counts_is_refused(tmp_path):
    adata = build_atlas()
    adata.layers["counts"] = adata.X.copy()
    path = tmp_path / "wrong.h5ad"
    adata.write_h5ad(path)
    assert "holds other values there" in only_problem(path).message


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_truncated_download_is_refused(atlas, tmp_path, share):
    whole = atlas.read_bytes()
    path = tmp_path / "cut.h5ad"
    path.write_bytes(whole[: int(len(whole) * share)])
    problem = only_problem(path)
    assert problem.code == "truncated"
    assert "again" in problem.hint


def test_nineteen_labels_of_the_earlier_stage_are_refused(tmp_path):
    path = write_old(build_atlas(stage=24), tmp_path / "raw.h5ad")
    problem = only_problem(path, roles=Roles(cell_type="celltype_final"))
    assert problem.code == "stage"
    assert "24 labels" in problem.message
    assert "--role cell_type=celltype" in problem.hint
    with pytest.raises(InputError, match="before its labels were cleaned"):
        load(path, Roles(cell_type="celltype_final"))


def test_codes_beyond_their_words_are_refused(clean):
    with h5py.File(clean, "r+") as file:
        file["obs/dataset"][0] = 99
    assert [problem.code for problem in check(clean).problems] == ["column"]


# The mechanism.


def test_two_data_sets_are_entries_of_one_table():
    assert set(PROFILES) == {"vangalen2019", "ennis2023"}
    assert profile_of_source("GEO GSE116256").key == "vangalen2019"
    assert profile_of_source("Zenodo 5931689").key == "ennis2023"
    assert profile_of_source("file mine.h5ad") is None


def test_profiles_are_listed(capsys):
    assert main(["data", "profiles"]) == 0
    told = capsys.readouterr().out
    assert all(key in told for key in PROFILES)
    assert main(["data", "profiles", "--json"]) == 0
    assert [one["key"] for one in json.loads(capsys.readouterr().out)] == list(PROFILES)


def test_command_line_says_what_it_recognised(clean, capsys):
    assert main(["data", "check", str(clean), "--quick"]) == 0
    assert "Ennis et al. 2023" in capsys.readouterr().out
    assert main(["data", "check", str(clean), "--quick", "--json", "--role", "profile="]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["profile"] is None


def test_a_file_of_its_own_words_keeps_what_it_says(tmp_path):
    adata = build_atlas()
    adata.uns["faultline"] = {"name": "made up", "simulated": np.True_, "source": "simulated"}
    adata.write_h5ad(tmp_path / "simulated.h5ad")
    about = load(tmp_path / "simulated.h5ad").uns["faultline"]
    assert (about["name"], bool(about["simulated"])) == ("made up", True)
