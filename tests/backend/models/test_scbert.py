"""scBERT's input, network options, checkpoint reading and refusals."""

from dataclasses import replace
from fnmatch import fnmatchcase

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import InputError, ModelUnavailable
from backend.models.gene_panel import align_to_panel, choose_panel, model_config
from backend.models.performer import FastAttention, PerformerOptions
from backend.models.scbert.model import ScBert
from backend.models.scbert.network import ConvolutionHead, ScBertNetwork, ScBertSizes
from backend.training.finetune import Classifier

N_GENES = 30
PANEL = tuple(f"GENE{i:02d}" for i in range(N_GENES))
TINY = ScBertSizes(dim=16, depth=2, heads=2, dim_head=8)


def cells(n=6, genes=PANEL, seed=0):
    """Return raw counts with many zeros; the last cell has none at all."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.5, 4, size=(n, len(genes)))).astype(np.float32)
    counts[-1] = 0
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n)])
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=list(genes)))


def model(panel=PANEL, **options):
    return ScBert(model_config("tiny", replace(TINY, **options)), panel, seed=3)


def batch_of(adapter, adata, rows=None):
    store = adapter.tokenise([adata], seed=0)
    return adapter.collate(store.take(np.arange(len(store)) if rows is None else np.array(rows)))


@given(order=st.permutations(range(N_GENES)), cut=st.integers(0, 6))
@settings(max_examples=20, deadline=None)
def test_order_of_genes_and_chunks_changes_nothing(order, cut):
    adata = cells()
    expected = batch_of(model(), adata)["tokens"]
    shuffled = adata[:, list(order)].copy()
    store = model().tokenise([shuffled[:cut], shuffled[cut:]], seed=1)
    tokens = model().collate(store.take(np.arange(len(store))))["tokens"]
    assert torch.equal(tokens, expected)


@given(missing=st.sets(st.integers(0, N_GENES - 1), max_size=20))
@settings(max_examples=20, deadline=None)
def test_missing_panel_gene_equals_a_zero(missing):
    adata = cells()
    kept = [i for i in range(N_GENES) if i not in missing]
    zeroed = adata.copy()
    zeroed.X = sp.csr_matrix(adata.X.toarray() * np.isin(np.arange(N_GENES), kept)[None, :])
    assert torch.equal(
        batch_of(model(), adata[:, kept].copy())["tokens"], batch_of(model(), zeroed)["tokens"]
    )


@given(
    counts=st.lists(st.integers(0, 500), min_size=N_GENES, max_size=N_GENES).filter(any),
    stored_as=st.sampled_from([np.float32, np.float64, np.int64]),
)
@settings(max_examples=50, deadline=None)
def test_bin_is_the_whole_part_of_the_logarithm(counts, stored_as):
    adata = cells(n=1)
    adata.X = sp.csr_matrix(np.array([counts], dtype=stored_as))
    tokens = batch_of(model(), adata)["tokens"][0].numpy()
    total = sum(counts)
    expected = [max(b for b in range(6) if c * 10_000 >= (2**b - 1) * total) for c in counts]
    np.testing.assert_array_equal(tokens, [*expected, 0])


def test_first_of_repeated_columns_counts():
    counts = sp.csr_matrix(np.array([[1.0, 2.0, 3.0, 0.0]], dtype=np.float32))
    aligned = align_to_panel(counts, ["B", "A", "B", "C"], ["A", "B", "D"])
    np.testing.assert_array_equal(aligned.toarray(), [[2, 1, 0]])
    assert aligned.nnz == 2


def test_tokenise_leaves_its_input_alone():
    adata = cells()
    before = adata.X.toarray()
    model().tokenise([adata], seed=0)
    np.testing.assert_array_equal(adata.X.toarray(), before)


@torch.no_grad()
def test_prediction_does_not_depend_on_the_neighbours():
    adata = cells()
    adapter = model()
    network = adapter.network(4).eval()
    together = network(**batch_of(adapter, adata))
    alone = torch.cat([network(**batch_of(adapter, adata, [i])) for i in range(adata.n_obs)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert torch.isfinite(together).all()


@torch.no_grad()
def test_the_references_batch_maximum_is_an_option():
    adata = cells()
    one, other = model(), model(key_maximum="batch")
    batch = batch_of(one, adata)
    per_cell, per_batch = one.network(4).eval(), other.network(4).eval()
    # Larger weights, so that the maxima of the cells differ.
    for network in (per_cell, per_batch):
        for layer in network.performer.net.layers:
            layer[0].fn.to_q.weight *= 5
            layer[0].fn.to_k.weight *= 5
    assert not torch.allclose(
        per_cell.encode(**batch), per_batch.encode(**batch), atol=1e-4, rtol=0
    )
    row = {name: value[:1] for name, value in batch.items()}
    torch.testing.assert_close(per_cell(**row), per_batch(**row))


@torch.no_grad()
def test_expressed_genes_only_is_the_whole_panel_when_all_are_expressed():
    adata = cells()
    adata.X = sp.csr_matrix(adata.X.toarray() + 1)
    whole, expressed = model(), model(expressed_only=True)
    torch.testing.assert_close(
        expressed.network(3).eval()(**batch_of(expressed, adata)),
        whole.network(3).eval()(**batch_of(whole, adata)),
        atol=1e-5,
        rtol=1e-4,
    )


@torch.no_grad()
def test_padding_changes_no_logit():
    adata = cells()
    adapter = model(expressed_only=True)
    network = adapter.network(3).eval()
    together = network(**batch_of(adapter, adata))
    alone = torch.cat([network(**batch_of(adapter, adata, [i])) for i in range(adata.n_obs)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_absent_tokens_weigh_nothing_in_attention():
    torch.manual_seed(0)
    attention = FastAttention(8, PerformerOptions())
    q, k, v = torch.randn(3, 1, 2, 9, 8).unbind(0)
    # The kernel's epsilon would let large values through.
    v[..., 6:, :] = 1e4
    found = attention(q, k, v, torch.arange(9)[None] >= 6)
    wanted = attention(*(x[..., :6, :] for x in (q, k, v)))
    torch.testing.assert_close(found[..., :6, :], wanted)


def test_features_are_redrawn_only_when_asked():
    batch = batch_of(model(), cells())
    for is_redrawn in (False, True):
        network = model(redraw_features=is_redrawn).network(3).train()
        attention = network.performer.net.layers[0][0].fn.fast_attention
        before = attention.projection_matrix.clone()
        network.performer.calls_since_last_redraw.fill_(1000)
        network(**batch)
        assert torch.equal(attention.projection_matrix, before) != is_redrawn
        assert int(network.performer.calls_since_last_redraw) == (0 if is_redrawn else 1000)
        network.performer.calls_since_last_redraw.fill_(1000)
        network.eval()(**batch)
        assert int(network.performer.calls_since_last_redraw) == 1000


def test_activation_checkpointing_gives_the_same_gradients():
    gradients = []
    for is_on in (False, True):
        adapter = model(checkpoint_activations=is_on)
        network = adapter.network(3).train()
        network(**batch_of(adapter, cells())).square().sum().backward()
        gradients.append([value.grad for value in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_maximum_of_one_cell_stays_in_the_gradient():
    """At one cell both maxima are the reference's, of which the golden numbers prove `batch`."""
    gradients = []
    for key_maximum in ("cell", "batch"):
        network = FastAttention(8, PerformerOptions(key_maximum=key_maximum))
        network.projection_matrix.copy_(
            torch.randn(network.projection_matrix.shape, generator=torch.Generator().manual_seed(1))
        )
        generator = torch.Generator().manual_seed(0)
        q, k, v = (3 * torch.randn(1, 2, 9, 8, generator=generator) for _ in range(3))
        k.requires_grad_()
        network(q, k, v).square().sum().backward()
        gradients.append(k.grad)
    torch.testing.assert_close(*gradients)


def test_half_precision_rounds_features_not_exponents():
    torch.manual_seed(0)
    attention = FastAttention(8, PerformerOptions())
    # Large vectors: rounding their exponents would change features by far more than 1 %.
    x = (8 * torch.randn(2, 2, 5, 8)).bfloat16().float().requires_grad_()
    exact = attention.exponentials(x, is_query=True)
    (expected,) = torch.autograd.grad(exact.sum(), x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attention.exponentials(x.bfloat16(), is_query=True, dtype=torch.bfloat16)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=1e-2, atol=1e-30)
    (gradient,) = torch.autograd.grad(rounded.float().sum(), x)
    assert torch.corrcoef(torch.stack([gradient.flatten(), expected.flatten()]))[0, 1] > 0.999


def test_half_precision_trains():
    adapter = model()
    network = adapter.network(3).train()
    batch = batch_of(adapter, cells())
    exact = network(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(**batch)
    logits.float().square().sum().backward()
    torch.testing.assert_close(logits.float(), exact, atol=0.05, rtol=0.05)
    assert all(torch.isfinite(value.grad).all() for value in network.parameters())


@pytest.mark.parametrize("dim", [8, 16, 20, 64])
def test_gradient_of_the_row_convolution(dim):
    head = ConvolutionHead(dim, 31, 8, 3)
    x, weights = torch.randn(2, 31, dim), torch.randn(2, 31)
    (head.conv1(x) * weights).sum().backward()
    expected = torch.einsum("bl,bld->d", weights, x)
    torch.testing.assert_close(head.conv1.weight.grad.flatten(), expected)


@torch.no_grad()
def test_attention_approximates_softmax():
    torch.manual_seed(0)
    attention = FastAttention(64, PerformerOptions())
    q, k, v = torch.randn(3, 1, 1, 40, 64).unbind(0)
    q, k = q / 2, k / 2
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert torch.corrcoef(torch.stack([attention(q, k, v).flatten(), exact.flatten()]))[0, 1] > 0.9


def test_report_counts_genes_and_cells():
    genes = [*PANEL[:20], "LINC1", "LINC2"]
    report = model().check_input(cells(genes=genes))
    assert (report.n_genes, report.n_matched, report.n_vocabulary) == (22, 20, 30)
    assert report.unmatched_examples == ("LINC1", "LINC2")
    notes = " ".join(report.notes)
    assert "10 of 30 panel genes" in notes
    assert "1 cells have no count in the panel" in notes
    assert "6 cells have fewer than 200 detected panel genes" in notes


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: setattr(a, "X", -1 * a.X), "negative"),
        (lambda a: setattr(a, "X", a.X.log1p()), "non-integer"),
        (lambda a: setattr(a, "X", a.X * np.nan), "not numbers"),
        (lambda a: setattr(a, "var_names", [f"ENSG{i:011d}" for i in range(N_GENES)]), "Ensembl"),
        (lambda a: setattr(a, "var_names", [f"other{i}" for i in range(N_GENES)]), "Only 0 of"),
        (lambda a: setattr(a, "var_names", ["GENE00", *PANEL[:-1]]), "more than once"),
    ],
)
def test_unusable_input_is_refused(change, match):
    adata = cells()
    change(adata)
    with pytest.raises(InputError, match=match):
        model().check_input(adata)


def test_unknown_option_is_refused():
    config = ScBert.presets["small"]
    config = replace(config, values={"depht": 3})
    with pytest.raises(InputError, match="depht"):
        ScBert.scratch(config, PANEL, seed=0)


def test_series_may_set_options_of_the_model():
    series = {"expressed_only": False, "key_maximum": "batch", "epochs": 1}
    typer = Classifier("scbert", "scbert.small", settings=series)
    adata = cells(n=20)
    adata.obs["label"] = ["a", "b"] * 10
    typer.fit(adata, label_key="label", valid=adata[:0].copy(), seed=0)
    assert "as in the reference, a prediction depends on the other cells" in " ".join(typer.notes_)
    assert "only the genes that a cell expresses" not in " ".join(typer.notes_)
    for wrong in ({"expressed_only": 1}, {"key_maximum": "head"}, {"pool_padding": True}):
        with pytest.raises(InputError):
            Classifier("scbert", "scbert.small", settings=wrong)


def test_panel_is_chosen_on_the_given_cells_whatever_their_column_order():
    adata = cells(n=60)
    panel = choose_panel(adata, 8)
    assert len(panel) == 8
    assert list(panel) == sorted(panel)
    assert choose_panel(adata[:, ::-1].copy(), 8) == panel
    built = ScBert.scratch_on(
        replace(ScBert.presets["small"], values={"panel_size": 8}), adata, seed=0
    )
    assert built.panel == panel


def test_state_restores_the_model():
    adapter = model(expressed_only=True)
    restored = ScBert.from_state(adapter.state())
    assert restored.panel == adapter.panel
    assert restored.sizes == adapter.sizes


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    one = model().network(3).state_dict()
    torch.manual_seed(6)
    other = model().network(3).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def folder(tmp_path):
    """Write a checkpoint as the authors do; return its folder and a way to change the weights."""
    torch.manual_seed(0)
    network = ScBertNetwork(TINY, N_GENES, None)
    tensors = network.state_dict()
    tensors["pos_emb.emb.weight"] = tensors["pos_emb.emb.weight"].double()
    tensors["pos_emb.emb.weight"][-1] = 0
    np.save(tmp_path / "gene2vec_16906.npy", tensors["pos_emb.emb.weight"][:-1].numpy())
    (tmp_path / "panglao_gene_order_16906.txt").write_text("\n".join(PANEL) + "\n")

    def save(change=lambda tensors: tensors, wrap="model_state_dict"):
        file = {"epoch": 1, wrap: change(dict(tensors)), "losses": 0.5}
        torch.save(file, tmp_path / "panglao_pretrain.pth")
        return tmp_path

    return save


def without(*patterns):
    return lambda tensors: {
        name: tensor
        for name, tensor in tensors.items()
        if not any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def test_checkpoint_is_read_whole(folder):
    adapter, report = ScBert.from_checkpoint(folder())
    assert report.share_loaded == 1
    assert report.fresh == report.dropped == ()
    assert adapter.sizes.dim == TINY.dim
    assert adapter.recipe().trainable[0] == "performer.net.layers.0.*"
    assert "gene vectors taken from the weights" in report.notes
    network = adapter.network(3)
    file = torch.load(folder() / "panglao_pretrain.pth", weights_only=True)["model_state_dict"]
    for name, tensor in network.state_dict().items():
        if not name.startswith("to_out."):
            torch.testing.assert_close(tensor, file[name].to(tensor.dtype))


def test_checkpoint_of_several_devices_and_with_a_classifier_is_read(folder):
    head = ScBertNetwork(TINY, N_GENES, 3).to_out.state_dict()

    def change(tensors):
        tensors = without("to_out.*")(tensors) | {
            f"to_out.{name}": tensor for name, tensor in head.items()
        }
        return {f"module.{name}": tensor for name, tensor in tensors.items()}

    _, report = ScBert.from_checkpoint(folder(change))
    assert report.share_loaded == 1
    assert "to_out.fc1.weight" in report.dropped


def test_gene_vectors_come_from_their_file_when_weights_lack_them(folder):
    path = folder(without("pos_emb*"))
    _, report = ScBert.from_checkpoint(path)
    assert report.share_loaded == 1
    (path / "gene2vec_16906.npy").unlink()
    with pytest.raises(ModelUnavailable, match="gene2vec"):
        ScBert.from_checkpoint(path)


def test_missing_files_are_named(folder):
    path = folder()
    (path / "panglao_gene_order_16906.txt").unlink()
    with pytest.raises(ModelUnavailable, match="panglao_gene_order_16906"):
        ScBert.from_checkpoint(path)
    with pytest.raises(ModelUnavailable, match="there is no folder"):
        ScBert.from_checkpoint(path / "nowhere")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (without("*projection_matrix"), "2 of 2 blocks have no"),
        (without("*layers.1.0.fn.to_q*"), "to_q"),
        (without("norm*"), "are missing"),
        (lambda t: t | {"extra.weight": torch.zeros(2)}, "no place"),
        (lambda t: t | {"norm.weight": torch.zeros(2)}, "another shape"),
        (lambda t: t | {"norm.weight": torch.full((16,), torch.nan)}, "not finite"),
        (lambda t: t | {"pos_emb.emb.weight": torch.zeros(31, 16)}, "other gene vectors"),
        (without("performer*"), "no scBERT weights"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, change, match):
    with pytest.raises(InputError, match=match):
        ScBert.from_checkpoint(folder(change))


def test_wrong_nesting_is_refused(folder):
    with pytest.raises(InputError, match="model_state_dict"):
        ScBert.from_checkpoint(folder(wrap="state"))


def test_wrong_panel_is_refused(folder):
    path = folder()
    (path / "panglao_gene_order_16906.txt").write_text("\n".join(PANEL[:-1]))
    with pytest.raises(InputError, match="29 genes"):
        ScBert.from_checkpoint(path)
    (path / "gene2vec_16906.npy").unlink()
    with pytest.raises(InputError, match="weights are for 30 genes"):
        ScBert.from_checkpoint(path)
    (path / "panglao_gene_order_16906.txt").write_text("\n".join([*PANEL[:-1], PANEL[0]]))
    with pytest.raises(InputError, match="repeats symbols"):
        ScBert.from_checkpoint(path)


def test_partial_weights_are_accepted_by_name_only(folder):
    path = folder(without("*layers.1.1*"))
    _, report = ScBert.from_checkpoint(path, accept_partial=True)
    assert report.share_loaded < 1
    assert any("layers.1.1" in name for name in report.fresh)
    with pytest.raises(InputError, match="random"):
        ScBert.from_checkpoint(folder(without("*projection_matrix")), accept_partial=True)
