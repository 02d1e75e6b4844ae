"""Geneformer: order and padding change nothing; wrong input is refused or counted."""

import json
import pickle
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

from backend.config import golden_dir
from backend.errors import InputError, ModelUnavailable
from backend.models.base import ModelConfig
from backend.models.geneformer.checkpoint import find_dictionaries
from backend.models.geneformer.model import Geneformer
from backend.models.geneformer.tokens import Dictionaries, nonzero_medians
from tests.published import GENEFORMER, geneformer_table, write_published

SHARED = Path(__file__).parents[3].parent / "shared"
GOLDEN = golden_dir() / "geneformer"
needs_fixtures = pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden fixtures")

DEEP = 100
"""Counts of a cell above which quotients of float32 may round apart."""
N_GENES = 40
GENES = [f"GENE{i}" for i in range(N_GENES)]
quick = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
tables = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.just(N_GENES)),
    elements=st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 5000)).map(float),
)


def cells_of(counts, genes=GENES, **columns):
    cells = ad.AnnData(sp.csr_matrix(np.asarray(counts, dtype=np.float32)))
    cells.obs_names = [f"cell{i}" for i in range(cells.n_obs)]
    cells.var_names = list(genes)
    for name, column in columns.items():
        (cells.var if name.startswith("ens") else cells.obs)[name] = column
    return cells


def scratch(*, has_cls=True, length=64, medians=None):
    values = {
        **Geneformer.presets["small"].values,
        "has_cls": has_cls,
        "max_position_embeddings": length,
    }
    model = Geneformer.scratch(ModelConfig("small", values, is_published_size=False), GENES, seed=0)
    model.dictionaries.medians.update(medians or {})
    return model


@pytest.fixture(scope="module", params=[False, True], ids=["v1", "v2"])
def model(request):
    # Few different medians make many ties.
    return scratch(
        has_cls=request.param, medians={gene: 1.0 + i % 3 for i, gene in enumerate(GENES)}
    )


@pytest.fixture(scope="module")
def network(model):
    return model.network(3).eval()


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(1.5, (6, N_GENES)).astype(np.float32)


def tokens_of(store, cell):
    return store.ids[store.indptr[cell] : store.indptr[cell + 1]].tolist()


def logits_of(model, network, store, cells=None):
    with torch.inference_mode():
        batch = model.collate(store.take(np.arange(len(store)) if cells is None else cells))
        return network(**batch).numpy()


@quick
@given(tables, st.randoms(use_true_random=False))
def test_permuting_genes_and_cells_changes_nothing(model, network, counts, random):
    cells = cells_of(counts)
    store = model.tokenise([cells])
    genes, rows = list(range(N_GENES)), list(range(len(counts)))
    random.shuffle(genes)
    random.shuffle(rows)
    shuffled = model.tokenise([cells[rows][:, genes].copy()])
    for new, old in enumerate(rows):
        assert tokens_of(shuffled, new) == tokens_of(store, old)
    np.testing.assert_allclose(
        logits_of(model, network, shuffled), logits_of(model, network, store)[rows], atol=1e-5
    )


@quick
@given(tables)
def test_ranks_are_those_of_a_loop_over_cells(model, counts):
    ranked, _ = model.rank(cells_of(counts))
    tokens = np.array([model.dictionaries.tokens[gene] for gene in GENES])
    medians = np.array([model.dictionaries.medians[gene] for gene in GENES])
    for cell, row in enumerate(counts.astype(np.float64)):
        genes = np.flatnonzero(row)
        # Whole counts and medians: ratios of small integers, compared without rounding.
        ratio = {tokens[g]: row[g] * 6 // medians[g] for g in genes}
        order = sorted(ratio, key=lambda token, ratio=ratio: (-ratio[token], token))
        found = ranked.columns[ranked.indptr[cell] : ranked.indptr[cell + 1]].tolist()
        assert sorted(found) == sorted(order)
        # Equal ratios of a deep cell may differ in their last bit, as in the reference.
        assert [ratio[token] for token in found] == [ratio[token] for token in order]
        assert row.sum() > DEEP or found == order


@quick
@given(tables)
def test_padding_changes_nothing(model, network, counts):
    store = model.tokenise([cells_of(counts)])
    together = logits_of(model, network, store)
    for cell in range(len(counts)):
        alone = logits_of(model, network, store, np.array([cell]))
        np.testing.assert_allclose(alone[0], together[cell], atol=1e-5)


def test_chunks_change_nothing(model, counts):
    cells = cells_of(counts)
    whole = model.tokenise([cells])
    parts = model.tokenise([cells[:1], cells[1:4], cells[4:]])
    np.testing.assert_array_equal(whole.indptr, parts.indptr)
    np.testing.assert_array_equal(whole.ids, parts.ids)


def test_depth_does_not_change_the_order(model, counts):
    whole = model.tokenise([cells_of(counts, n_counts=counts.sum(axis=1))])
    deeper = model.tokenise([cells_of(counts, n_counts=counts.sum(axis=1) * 3)])
    np.testing.assert_array_equal(whole.ids, deeper.ids)


@pytest.mark.parametrize("has_cls", [False, True])
def test_long_cells_keep_their_highest_genes(counts, has_cls):
    short, whole = scratch(has_cls=has_cls, length=8), scratch(has_cls=has_cls)
    kept, everything = short.tokenise([cells_of(counts)]), whole.tokenise([cells_of(counts)])
    tokens = short.dictionaries.tokens
    for cell in range(len(counts)):
        if has_cls:
            first, last = tokens["<cls>"], tokens["<eos>"]
            assert tokens_of(kept, cell) == [first, *tokens_of(everything, cell)[1:7], last]
        else:
            assert tokens_of(kept, cell) == tokens_of(everything, cell)[:8]


def test_cells_without_known_genes_are_counted_and_alike(model, network, counts):
    counts[[0, 4, 5]] = 0
    cells = cells_of(counts)
    report = model.check_input(cells)
    assert any(note.startswith("3 cells have no count in a known gene") for note in report.notes)
    store = model.tokenise([cells])
    tokens = model.dictionaries.tokens
    special = [tokens["<cls>"], tokens["<eos>"]] if model.has_cls else [tokens["<mask>"]]
    for cell in range(6):
        if cell in (0, 4, 5):
            assert tokens_of(store, cell) == special
        elif model.has_cls:
            assert [tokens_of(store, cell)[i] for i in (0, -1)] == special
            assert not set(tokens_of(store, cell)[1:-1]) & set(special)
    logits = logits_of(model, network, store)
    np.testing.assert_allclose(logits[0], logits[4], atol=1e-5)


def test_columns_of_one_gene_are_summed_and_said(counts):
    dictionaries = Dictionaries(
        {"<pad>": 0, "<mask>": 1, **{f"ENSG{i}": i + 2 for i in range(39)}},
        {f"ENSG{i}": 1.0 for i in range(39)},
        {f"ENSG{i}": f"ENSG{i}" for i in range(39)} | {"OLD": "ENSG7"},
    )
    values = {**Geneformer.presets["small"].values, "has_cls": False}
    model = Geneformer(ModelConfig("small", values, is_published_size=False), dictionaries)
    ids = [*(f"ensg{i}" for i in range(38)), "ENSG7", "old"]
    cells = cells_of(counts, ensembl=ids)
    report = model.check_input(cells)
    assert "2 columns have the id of another one: their counts are summed" in report.notes
    assert "1 ids were replaced by the current ones of the authors" in report.notes
    ranked, _ = model.rank(cells)
    summed = counts[:, :38].copy()
    summed[:, 7] += counts[:, 38] + counts[:, 39]
    for cell in range(6):
        entries = slice(ranked.indptr[cell], ranked.indptr[cell + 1])
        found = np.zeros(38)
        found[ranked.columns[entries] - 2] = ranked.values[entries]
        np.testing.assert_array_equal(found, summed[cell])


def test_genes_are_counted(model, counts):
    names = [*GENES[:30], *(f"NEW{i}" for i in range(9)), "<pad>"]
    report = model.check_input(cells_of(counts, names))
    assert (report.n_genes, report.n_matched, report.n_vocabulary) == (40, 30, 40)
    assert report.unmatched_examples == ("<pad>", "NEW0", "NEW1", "NEW2", "NEW3")


def test_symbols_in_the_place_of_ensembl_ids_are_refused(counts):
    ids = [f"ENSG{i}" for i in range(N_GENES)]
    model = Geneformer.scratch(Geneformer.presets["small"], ids, seed=0)
    with pytest.raises(InputError, match=r"Only 0 of 40 .* Found: GENE0.* needs human Ensembl ids"):
        model.check_input(cells_of(counts))
    assert model.check_input(cells_of(counts, ensembl=ids)).n_matched == 40
    assert model.check_input(cells_of(counts, ids)).n_matched == 40
    some = [*ids[:-1], None]
    assert model.check_input(cells_of(counts, ensembl=some)).n_matched == 39


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: np.log1p(x), "looks log-normalised"),
        (lambda x: -x, "negative values"),
        (lambda x: x * np.nan, "not numbers"),
    ],
)
def test_other_than_counts_is_refused(model, counts, spoil, message):
    with pytest.raises(InputError, match=message):
        model.check_input(cells_of(spoil(counts)))


def test_wrong_totals_are_refused(model, counts):
    with pytest.raises(InputError, match="fewer counts than `X` holds"):
        model.check_input(cells_of(counts, n_counts=counts.sum(axis=1) - 2))


def test_state_describes_the_model(model, counts):
    again = Geneformer.from_state(json.loads(json.dumps(model.state())))
    cells = cells_of(counts)
    np.testing.assert_array_equal(again.tokenise([cells]).ids, model.tokenise([cells]).ids)


def test_medians_are_those_of_a_loop_over_genes(counts):
    counts[:, 3] = 0
    share = counts / counts.sum(axis=1, keepdims=True) * 1e4
    wanted = [np.median(column[column > 0]) if column.any() else 1 for column in share.T]
    np.testing.assert_allclose(nonzero_medians(sp.csr_matrix(counts)), wanted, rtol=1e-6)
    model = Geneformer.scratch_on(Geneformer.presets["small"], cells_of(counts), seed=0)
    known = dict(zip(GENES, wanted, strict=True))
    del known[GENES[3]]
    assert model.dictionaries.medians == pytest.approx(known, rel=1e-6)


def test_genes_of_few_training_cells_are_not_read(counts):
    many = np.tile(np.maximum(counts, 1), (-(-100 // len(counts)), 1))[:100]
    many[9:, 3] = 0
    many[10:, 4] = 0
    model = Geneformer.scratch_on(Geneformer.presets["small"], cells_of(many), seed=0)
    assert set(GENES) - set(model.dictionaries.medians) == {GENES[3]}


def test_logits_are_those_of_the_stock_network(model, counts):
    """The last layer is worked out for the first token alone, with and without padding."""
    network = model.network(3).eval()
    store = model.tokenise([cells_of(counts)])
    for rows in ([0], np.arange(len(counts))):
        batch = model.collate(store.take(np.asarray(rows)))
        whole = BertForSequenceClassification.forward(network, **batch).logits
        torch.testing.assert_close(network(**batch), whole, rtol=1e-5, atol=1e-6)


def test_seeded_weights_are_repeated_and_leave_the_generator(model):
    before = torch.random.get_rng_state()
    first, second = model.network(3), model.network(3)
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.fixture
def checkpoint(tmp_path):
    shutil.copytree(GOLDEN / "v2", tmp_path / "v2")
    return tmp_path / "v2" / "pretrained"


def change_pickle(path, change):
    values = pickle.loads(path.read_bytes())  # noqa: TID251 - our own fixture
    change(values)
    path.write_bytes(pickle.dumps(values))


@needs_fixtures
@pytest.mark.parametrize(("model_of", "words_of"), [("v1", "v2"), ("v2", "v1")])
def test_dictionary_of_another_version_is_refused(tmp_path, model_of, words_of):
    shutil.copytree(GOLDEN / model_of / "pretrained", tmp_path / "model")
    shutil.copytree(GOLDEN / words_of / "dictionaries", tmp_path / "dictionaries")
    with pytest.raises(InputError, match=r"does not belong to the model.*gc30M.*V1.*gc104M"):
        Geneformer.from_checkpoint(tmp_path / "model")


@needs_fixtures
def test_both_versions_side_by_side_as_in_the_repository(tmp_path):
    for version, place in (("v1", "geneformer/gene_dictionaries_30m"), ("v2", "geneformer")):
        shutil.copytree(GOLDEN / version / "pretrained", tmp_path / version)
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for path in (GOLDEN / version / "dictionaries").glob("*.pkl"):
            shutil.copy(path, tmp_path / place / f"{path.stem}_{version}.pkl")
    assert not Geneformer.from_checkpoint(tmp_path / "v1")[0].has_cls
    assert Geneformer.from_checkpoint(tmp_path / "v2")[0].has_cls


@needs_fixtures
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "token_dictionary",
            lambda d: d.update({"<PAD>": d.pop("<pad>")}),
            "lacks special tokens. Found: <mask>, <cls>, <eos>",
        ),
        (
            "token_dictionary",
            lambda d: d.update({"<EOS>": d.pop("<eos>")}),
            "Found: <pad>, <mask>, <cls>",
        ),
        ("token_dictionary", lambda d: d.update({"<eos>": 999}), "without gaps"),
        (
            "gene_median_dictionary",
            lambda d: d.pop(next(iter(d))),
            "lacks a positive median for 1 of",
        ),
        (
            "gene_median_dictionary",
            lambda d: d.update({next(iter(d)): 0.0}),
            "lacks a positive median for 1 of",
        ),
        ("token_dictionary", lambda d: d.update({"evil": Path("x")}), "forbidden name `pathlib"),
    ],
)
def test_wrong_dictionaries_are_refused(checkpoint, name, change, message):
    place = checkpoint.parent / "dictionaries"
    for path in place.glob("*.json"):
        path.unlink()
    change_pickle(place / f"{name}.pkl", change)
    with pytest.raises(InputError, match=message):
        Geneformer.from_checkpoint(checkpoint)


@needs_fixtures
def test_missing_files_are_named(checkpoint):
    shutil.rmtree(checkpoint.parent / "dictionaries")
    with pytest.raises(ModelUnavailable, match=r"no token dictionary .* huggingface\.co"):
        Geneformer.from_checkpoint(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=r"no `model\.safetensors`"):
        Geneformer.from_checkpoint(checkpoint)


@needs_fixtures
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("bert.embeddings.LayerNorm.bias"), "1 are missing"),
        (lambda t: t.update({"bert.extra": torch.ones(1)}), "1 have no place"),
        (
            lambda t: t.update({"bert.embeddings.position_embeddings.weight": torch.ones(9, 32)}),
            "another shape",
        ),
    ],
)
def test_checkpoints_that_do_not_fill_the_backbone_are_refused(checkpoint, change, message):
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(InputError, match=message):
        Geneformer.from_checkpoint(checkpoint)
    Geneformer.from_checkpoint(checkpoint, accept_partial=True)


@needs_fixtures
def test_configuration_that_lacks_sizes_is_refused(checkpoint):
    path = checkpoint / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    del values["num_hidden_layers"]
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(InputError, match="does not give num_hidden_layers"):
        Geneformer.from_checkpoint(checkpoint)


@needs_fixtures
@pytest.mark.parametrize("preset", GENEFORMER)
def test_full_size_network_has_the_published_shapes(preset):
    published = geneformer_table(preset)
    config = Geneformer.presets[preset.partition(".")[2]]
    n_special = 4 if config.values["has_cls"] else 2
    genes = [f"ENSG{i}" for i in range(published["config"]["vocab_size"] - n_special)]
    model = Geneformer.scratch(config, genes, seed=0)
    for key in published["config"].keys() - {"vocab_size", "pad_token_id"}:
        assert model.config.values[key] == published["config"][key], key
    with torch.device("meta"):
        network = model.network(2)
    own = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    for key, shape in published["keys"].items():
        if not key.startswith("cls.") and key != "bert.embeddings.position_ids":
            assert own.pop(key) == shape
    assert set(own) == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    }
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert n_parameters == published["parameters_sequence_classifier_2_labels"]


@pytest.mark.slow
@needs_fixtures
@pytest.mark.parametrize("preset", ["geneformer.v1_10m", "geneformer.v2_104m"])
def test_full_size_checkpoint_loads(tmp_path, preset):
    tensors = write_published(preset, tmp_path)
    if preset == "geneformer.v1_10m":
        # Metadata of the published file is a few bytes; its tensors are as many as here.
        assert abs((tmp_path / "model.safetensors").stat().st_size - 41_183_536) < 200
    loaded, report = Geneformer.from_checkpoint(tmp_path)
    assert loaded.config == Geneformer.presets[preset.partition(".")[2]]
    assert report.share_loaded == 1.0
    key = "bert.encoder.layer.5.attention.self.query.weight"
    assert torch.equal(loaded.network(18).state_dict()[key], tensors[key])


@pytest.mark.parametrize(
    ("version", "vocab_size", "has_cls"), [("v1", 25_426, False), ("v2", 20_275, True)]
)
def test_published_dictionaries_are_read(version, vocab_size, has_cls):
    folder = SHARED / "vocab" / f"geneformer_{version}"
    if not folder.is_dir():
        pytest.skip("the published dictionaries are not here")
    found = find_dictionaries(folder, vocab_size)
    assert ("<cls>" in found.tokens) == has_cls
    assert len(found.medians) == vocab_size - (4 if has_cls else 2)
    assert found.uses_ensembl
    tokens = found.tokens_of(["ENSG00000174059", "ENSG00000174059.17", "<pad>"])
    assert tokens[0] > 1
    assert tokens[1:].tolist() == [-1, -1]
    with pytest.raises(InputError, match="does not belong to the model"):
        find_dictionaries(folder, 12)


@pytest.mark.parametrize("version", ["v1_10m", "v2_104m"])
def test_published_files_have_the_known_hashes(version):
    folder = SHARED / "vocab" / f"geneformer_{version[:2]}"
    if not folder.is_dir():
        pytest.skip("the published dictionaries are not here")
    from backend.models.catalogue import verify

    checks = {check.file.name: check.status for check in verify("geneformer", folder, version)}
    assert sum(status == "same" for status in checks.values()) == 3
    assert checks["model.safetensors"] == "missing"
