"""scFoundation's input, network options, checkpoint reading and refusals."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import InputError, ModelUnavailable
from backend.models.gene_panel import model_config
from backend.models.scfoundation.model import ScFoundation
from backend.models.scfoundation.network import ScFoundationAutoencoder, ScFoundationSizes
from backend.models.scfoundation.tokens import prepare_values, target_depth

N_GENES = 30
PANEL = tuple(f"GENE{i:02d}" for i in range(N_GENES))
TINY = ScFoundationSizes(
    dim=16,
    depth=2,
    heads=2,
    n_bins=8,
    hidden=12,
    decoder_dim=8,
    decoder_depth=1,
    decoder_heads=2,
    decoder_dim_head=4,
)


def cells(n=6, genes=PANEL, seed=0):
    """Return raw counts with many zeros; the last cell has none at all."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.5, 4, size=(n, len(genes)))).astype(np.float32)
    counts[-1] = 0
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n)])
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=list(genes)))


def model(panel=PANEL, **options):
    return ScFoundation(model_config("tiny", replace(TINY, **options)), panel, seed=3)


def batch_of(adapter, adata, rows=None):
    store = adapter.tokenise([adata], seed=0)
    return adapter.collate(store.take(np.arange(len(store)) if rows is None else np.array(rows)))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name])


@given(order=st.permutations(range(N_GENES)), cut=st.integers(0, 6))
@settings(max_examples=20, deadline=None)
def test_order_of_genes_and_chunks_changes_nothing(order, cut):
    adata = cells()
    shuffled = adata[:, list(order)].copy()
    adapter = model(depth_tokens=True)
    store = adapter.tokenise([shuffled[:cut], shuffled[cut:]], seed=1)
    tokens = adapter.collate(store.take(np.arange(len(store))))
    assert_same(tokens, batch_of(adapter, adata))


@given(missing=st.sets(st.integers(0, N_GENES - 1), max_size=20))
@settings(max_examples=20, deadline=None)
def test_missing_panel_gene_equals_a_zero(missing):
    adata = cells()
    kept = [i for i in range(N_GENES) if i not in missing]
    zeroed = adata.copy()
    zeroed.X = sp.csr_matrix(adata.X.toarray() * np.isin(np.arange(N_GENES), kept)[None, :])
    assert_same(batch_of(model(), adata[:, kept].copy()), batch_of(model(), zeroed))


def test_values_are_natural_logarithms_of_counts_per_10k():
    values, target, source = prepare_values(sp.csr_matrix(np.array([[1.0, 0, 3, 0]])))
    np.testing.assert_allclose(values.toarray()[0, [0, 2]], np.log1p([2500, 7500]), rtol=1e-6)
    np.testing.assert_allclose(source, np.log10(4))
    np.testing.assert_array_equal(target, [4])


def test_target_depth_of_each_kind():
    source = np.array([2.0, 3.0])
    np.testing.assert_allclose(target_depth("t4.5", source), [4.5, 4.5])
    np.testing.assert_allclose(target_depth("f10", source), [3, 4])
    np.testing.assert_allclose(target_depth("a2", source), [4, 5])
    for wrong in ("x1", "t", "f0", "f-1", "", "tnan"):
        with pytest.raises(InputError, match="resolution"):
            target_depth(wrong, source)


@torch.no_grad()
def test_padding_is_ignored_by_default():
    adata = cells()
    adapter = model()
    network = adapter.network(3).eval()
    together = network(**batch_of(adapter, adata))
    alone = torch.cat([network(**batch_of(adapter, adata, [i])) for i in range(adata.n_obs)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_pooling_over_padding_is_an_option():
    adata = cells()
    adata.X = sp.csr_matrix(adata.X.toarray() * (np.arange(N_GENES) < [[5]] * 3 + [[30]] * 3))
    # The reference pads with the gene at place `pad_token_id`, so that place must exist.
    adapter = model(pool_padding=True, pad_token_id=17.0)
    network = adapter.network(3).eval()
    together = network(**batch_of(adapter, adata))
    alone = torch.cat([network(**batch_of(adapter, adata, [i])) for i in range(adata.n_obs)])
    assert not torch.allclose(together, alone, atol=1e-4)


@torch.no_grad()
def test_cell_without_counts_has_one_defined_token():
    adapter = model()
    batch = batch_of(adapter, cells(), [-1])
    assert batch["gene_ids"].tolist() == [[N_GENES + 2]]
    assert not batch["padding"].any()
    assert torch.isfinite(adapter.network(3).eval()(**batch)).all()


def test_batch_of_one_cell_trains():
    adapter = model()
    network = adapter.network(3).train()
    before = network.norm.running_mean.clone()
    network(**batch_of(adapter, cells(), [0])).sum().backward()
    torch.testing.assert_close(network.norm.running_mean, before)
    network(**batch_of(adapter, cells(), [0, 1]))
    assert not torch.equal(network.norm.running_mean, before)


def test_a_feature_that_never_varied_is_divided_by_the_references_epsilon():
    """One of 1e-5 changes what varies by less than rounding."""
    norm = model().network(3).eval().norm
    norm.running_var.zero_()
    values = torch.full((1, TINY.dim), 1e-3)
    torch.testing.assert_close(norm(values), torch.ones_like(values))


def test_highest_values_are_kept_when_tokens_are_limited():
    adata = cells(n=1)
    adata.X = sp.csr_matrix(np.arange(N_GENES, dtype=np.float32)[None, :] % 7)
    batch = batch_of(model(max_tokens=5), adata)
    # Of equal values the first genes stay; the order of the panel is kept.
    assert batch["gene_ids"].tolist() == [[5, 6, 13, 20, 27]]


def test_report_counts_genes_and_cells():
    report = model().check_input(cells(genes=[*PANEL[:20], "LINC1", "LINC2"]))
    assert (report.n_genes, report.n_matched, report.n_vocabulary) == (22, 20, 30)
    assert "10 of 30 panel genes" in " ".join(report.notes)
    assert "1 cells have no count in the panel" in " ".join(report.notes)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: setattr(a, "X", -1 * a.X), "negative"),
        (lambda a: setattr(a, "X", a.X.log1p()), "non-integer"),
        (lambda a: setattr(a, "var_names", [f"ENSG{i:011d}" for i in range(N_GENES)]), "Ensembl"),
        (lambda a: setattr(a, "var_names", ["GENE00", *PANEL[:-1]]), "more than once"),
    ],
)
def test_unusable_input_is_refused(change, match):
    adata = cells()
    change(adata)
    with pytest.raises(InputError, match=match):
        model().check_input(adata)


def test_unknown_option_is_refused():
    config = replace(ScFoundation.presets["small"], values={"layers": 3})
    with pytest.raises(InputError, match="layers"):
        ScFoundation.scratch(config, PANEL, seed=0)


def test_options_change_the_model_and_are_noted():
    changed = model().with_options({"max_tokens": 4, "pool_padding": True, "depth_tokens": True})
    notes = " ".join(changed.check_input(cells()).notes)
    assert "at most 4 genes" in notes
    assert "depends on the other cells" in notes
    assert "read-depth tokens" in notes
    for wrong in ({"max_tokens": 0}, {"resolution": "x"}, {"expressed_only": True}):
        with pytest.raises(InputError):
            model().with_options(wrong)


def test_state_restores_the_model():
    adapter = model(max_tokens=7)
    restored = ScFoundation.from_state(adapter.state())
    assert restored.panel == adapter.panel
    assert restored.sizes == adapter.sizes


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    one = model().network(3).state_dict()
    torch.manual_seed(6)
    other = model().network(3).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def configuration(**changes):
    """Return the configuration of an entry as the authors nest it."""
    values = {
        "encoder": {"hidden_dim": 16, "depth": 2, "heads": 2, "module_type": "transformer"},
        "decoder": {
            "hidden_dim": 8,
            "depth": 1,
            "heads": 2,
            "dim_head": 4,
            "module_type": "performer",
        },
        "pad_token_id": 103,
        "mask_token_id": 102,
        "bin_num": 99,
        "bin_alpha": 1.0,
    }
    # The part of the data wins.
    return {
        "model": "mae_autobin",
        "model_config": {"mae_autobin": values},
        "dataset_config": {"rnaseq": {"bin_num": 8}},
    } | changes


@pytest.fixture
def folder(tmp_path):
    """Write files as the authors nest them; return a way to change them."""
    tensors = {}
    for seed, entry in enumerate(("gene", "cell", "rde")):
        torch.manual_seed(seed)
        state = ScFoundationAutoencoder(TINY, N_GENES).state_dict()
        tensors[entry] = {f"model.{name}": tensor for name, tensor in state.items()}
    rows = "".join(f"{gene}\t{i}\n" for i, gene in enumerate(PANEL))
    (tmp_path / "OS_scRNA_gene_index.19264.tsv").write_text("gene_name\tindex\n" + rows)

    def save(change=lambda file: file):
        file = {
            entry: {"config": configuration(), "state_dict": dict(state)}
            for entry, state in tensors.items()
        }
        torch.save(change(file), tmp_path / "models.ckpt")
        return tmp_path

    return save


def test_checkpoint_is_read_whole(folder):
    path = folder()
    adapter, report = ScFoundation.from_checkpoint(path)
    assert report.share_loaded == 1
    assert report.fresh == report.dropped == ()
    assert adapter.panel == PANEL
    assert adapter.sizes.n_bins == 8
    assert adapter.recipe().trainable == ("encoder.transformer_encoder.0.*", "fc1.*")
    file = torch.load(path / "models.ckpt", weights_only=True)
    network = adapter.network(3).state_dict()
    # Of the three sets, "gene" is fine-tuned.
    name = "encoder.transformer_encoder.0.linear1.weight"
    assert torch.equal(network[name], file["gene"]["state_dict"][f"model.{name}"])
    assert not torch.equal(network[name], file["cell"]["state_dict"][f"model.{name}"])


def changed(entry, part, value):
    return lambda file: file | {entry: file[entry] | {part: value}}


def tensors_changed(change):
    return lambda file: changed("gene", "state_dict", change(file["gene"]["state_dict"]))(file)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda file: file["gene"]["state_dict"], 'no part "gene"'),
        (lambda file: file["gene"], 'no part "gene"'),
        (lambda file: {"gene": file["gene"]["state_dict"]}, 'no part "state_dict"'),
        (lambda file: [1, 2], "Found: list"),
        (changed("gene", "config", {}), 'no part "model"'),
        (changed("gene", "config", configuration(model="mae")), 'architecture "mae"'),
        (changed("gene", "config", configuration(dataset_config={})), 'no part "rnaseq"'),
        (tensors_changed(lambda t: t | {"model.pos_emb.weight": torch.zeros(9, 16)}), "6 genes"),
        (tensors_changed(lambda t: t | {"model.x": torch.zeros(2)}), "no place"),
        (tensors_changed(lambda t: t | {"model.norm.bias": torch.zeros(2)}), "another shape"),
        (
            tensors_changed(
                lambda t: {name: x for name, x in t.items() if "encoder.norm" not in name}
            ),
            "are missing",
        ),
        (
            tensors_changed(
                lambda t: {name: x for name, x in t.items() if "projection" not in name}
            ),
            "projection_matrix",
        ),
        (tensors_changed(lambda t: dict.fromkeys(t, 1)), "does not map names"),
    ],
)
def test_files_of_another_layout_are_refused(folder, change, match):
    with pytest.raises(InputError, match=match):
        ScFoundation.from_checkpoint(folder(change))


def test_missing_files_are_named(folder):
    path = folder()
    (path / "models.ckpt").unlink()
    with pytest.raises(ModelUnavailable, match=r"models\.ckpt"):
        ScFoundation.from_checkpoint(path)
    folder()
    (path / "OS_scRNA_gene_index.19264.tsv").unlink()
    with pytest.raises(ModelUnavailable, match="gene_index"):
        ScFoundation.from_checkpoint(path)


def test_file_with_a_foreign_class_is_refused(folder):
    path = folder(lambda file: file | {"gene": replace(TINY)})
    with pytest.raises(InputError, match="was not read"):
        ScFoundation.from_checkpoint(path)
