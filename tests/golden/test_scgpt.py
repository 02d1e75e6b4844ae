"""scGPT against numbers of its reference implementation, on small random weights."""

import json
from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from backend.config import golden_dir
from backend.models.base import ModelConfig, TokenBatch, TokenStore
from backend.models.checkpoints import fit_tensors, read_tensors
from backend.models.ragged import Ragged, known_entries, pad
from backend.models.scgpt import model as scgpt
from backend.models.scgpt.checkpoint import UNUSED, rename
from backend.models.scgpt.tokens import bin_bounds, draw_bins, log_normalise, with_zeros
from tests.golden.tolerances import assert_close
from tests.golden.training import train_steps

FOLDER = golden_dir() / "scgpt"
pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no fixtures at {FOLDER}"),
]
N_TRAINED = 8
CLIPPED_AT = 1.0


def reference_generator(seed):
    """The reference draws from numpy's legacy generator."""
    return np.random.RandomState(seed)


@pytest.fixture(scope="module")
def expected():
    return dict(np.load(FOLDER / "expected.npz"))


@pytest.fixture(scope="module")
def meta():
    return json.loads((FOLDER / "meta.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def loading():
    return json.loads((FOLDER / "loading.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cells():
    return ad.read_h5ad(FOLDER / "counts.h5ad")


@pytest.fixture(scope="module")
def loaded():
    return scgpt.ScGPT.from_checkpoint(FOLDER / "pretrained")


@pytest.fixture(scope="module")
def model(loaded):
    return loaded[0]


@pytest.fixture
def network(model, meta):
    """The fine-tuned classifier, in evaluation mode."""
    network = model.network(meta["config"]["n_cls"])
    tensors = read_tensors(FOLDER / "finetuned" / "model.pt")
    fit_tensors(network, tensors, display_name="scGPT", rename=rename, unused=UNUSED)
    return network.eval()


def ids_of(model, names):
    return model._gene_ids(names)


def known(model, cells):
    """Return the entries of known genes, with columns counted among them."""
    ids = ids_of(model, cells.var_names)
    entries = known_entries(cells.X, ids >= 0)
    column = np.cumsum(ids >= 0) - 1
    return Ragged(entries.indptr, column[entries.columns].astype(np.int32), entries.values)


def dense(entries, values, n_genes):
    shape = (len(entries.indptr) - 1, n_genes)
    return sp.csr_matrix((values, entries.columns, entries.indptr), shape=shape).toarray()


def padded(model, store, value=None):
    """Return the tokens of a store as arrays."""
    batch = store.take(np.arange(len(store)))
    genes = pad(batch.ids, model.vocabulary["<pad>"], np.int64)
    values = pad(batch.values, model.sizes.pad_value if value is None else value, np.float32)
    return genes, values


def batch_of(model, genes, values, rows=slice(None)):
    """Return stored tokens as the network's input, through the model's own collation."""
    keep = genes != model.vocabulary["<pad>"]
    return model.collate(
        TokenBatch(
            ids=[row[kept] for row, kept in zip(genes[rows], keep[rows], strict=True)],
            values=[row[kept] for row, kept in zip(values[rows], keep[rows], strict=True)],
        )
    )


@torch.inference_mode()
def outputs(network, batch):
    return network.embed(**batch).numpy(), network(**batch).numpy()


def test_genes_are_matched_by_symbol(model, cells, expected):
    ids = ids_of(model, cells.var_names)
    np.testing.assert_array_equal(cells.var_names[ids >= 0], expected["gene_names"])
    np.testing.assert_array_equal(ids[ids >= 0], expected["gene_ids"])


def test_normalisation(model, cells, expected):
    entries = known(model, cells)
    transform = log_normalise(entries)
    n_genes = len(expected["gene_ids"])
    normed = transform.normed(entries.rows(), entries.values)
    assert_close(dense(entries, normed, n_genes), expected["normed"], "formula")
    logged = transform(entries.rows(), entries.values)
    assert_close(dense(entries, logged, n_genes), expected["log1p"], "formula")


def test_bin_bounds_are_exact(model, cells, expected):
    entries = known(model, cells)
    bounds = bin_bounds(entries, model.sizes.n_bins, transform=log_normalise(entries))
    n_genes = len(expected["gene_ids"])
    np.testing.assert_array_equal(dense(entries, bounds.low, n_genes), expected["bin_low"])
    np.testing.assert_array_equal(dense(entries, bounds.upto, n_genes), expected["bin_high"])
    assert_close(bounds.edges, expected["bin_edges"][:, 1:], "formula")
    assert not expected["bin_edges"][:, 0].any()


def test_depth_normalisation_does_not_move_the_bounds(model, cells, expected):
    entries = known(model, cells)
    bounds = bin_bounds(entries, model.sizes.n_bins)
    n_genes = len(expected["gene_ids"])
    np.testing.assert_array_equal(dense(entries, bounds.low, n_genes), expected["bin_low"])


def test_bins_with_the_reference_generator(model, cells, expected, meta):
    entries = known(model, cells)
    bounds = bin_bounds(entries, model.sizes.n_bins, transform=log_normalise(entries))
    uniform = reference_generator(meta["seed"]).random_sample(len(entries.values))
    binned = dense(entries, draw_bins(bounds, uniform), len(expected["gene_ids"]))
    np.testing.assert_array_equal(binned, expected["binned"])


def test_our_bins_lie_inside_the_bounds(model, cells, expected):
    store = model.tokenise([cells], seed=0)
    for cell, tokens in enumerate(np.split(np.arange(len(store.ids)), store.indptr[1:-1])):
        ids, bins = store.ids[tokens][1:], store.values[tokens][1:]
        column = {token: i for i, token in enumerate(expected["gene_ids"])}
        at = [column[token] for token in ids]
        assert (bins >= expected["bin_low"][cell, at]).all()
        assert (bins <= expected["bin_high"][cell, at]).all()


def test_tokens_follow_cls_in_gene_order(model, cells, expected):
    genes, _ = padded(model, model.tokenise([cells], seed=0))
    np.testing.assert_array_equal(genes, expected["tok_genes"])
    np.testing.assert_array_equal(genes == model.vocabulary["<pad>"], expected["tok_pad_mask"])


def reference_tokens(model, expected):
    """Return the tokens that our code makes of the stored bins."""
    cell, column = np.nonzero(expected["binned"])
    indptr = np.append(0, np.cumsum((expected["binned"] > 0).sum(axis=1)))
    bins = expected["binned"][cell, column].astype(np.float32)
    return Ragged(indptr, column.astype(np.int32), bins)


def test_token_values(model, expected):
    entries = reference_tokens(model, expected)
    ids = expected["gene_ids"][entries.columns]
    genes, values = padded(model, model.with_cls(entries, ids, entries.values))
    np.testing.assert_array_equal(genes, expected["tok_genes"])
    np.testing.assert_array_equal(values, expected["tok_values"])


def test_tokens_with_zero_genes(model, expected):
    columns = np.arange(len(expected["gene_ids"]))
    entries = reference_tokens(model, expected)
    entries, bins = with_zeros(entries, entries.values, columns)
    ids = expected["gene_ids"][entries.columns]
    genes, values = padded(model, model.with_cls(entries, ids, bins))
    np.testing.assert_array_equal(genes, expected["tok_zero_genes"])
    np.testing.assert_array_equal(values, expected["tok_zero_values"])


def test_zero_genes_are_an_option(model, cells, expected):
    sizes = {**model.config.values, "reads_zeros": True}
    all_genes = scgpt.ScGPT(ModelConfig("all", sizes, is_published_size=False), model.vocabulary)
    genes, values = padded(model, all_genes.tokenise([cells], seed=0))
    np.testing.assert_array_equal(genes, expected["tok_zero_genes"])
    np.testing.assert_array_equal(values == 0, expected["tok_zero_values"] == 0)


def test_long_cells_are_sampled_as_the_reference_with_its_generator(model, expected, meta):
    """Our sample is made of scores; the reference's is a permutation of positions."""
    limit = meta["config"]["small_max_len"]
    generator = reference_generator(meta["seed"] + 1)
    entries = reference_tokens(model, expected)
    store = model.with_cls(entries, expected["gene_ids"][entries.columns], entries.values)
    rows = store.take(np.arange(len(store)))
    ids, values = [], []
    for row, row_values in zip(rows.ids, rows.values, strict=True):
        order = np.arange(1, len(row))
        if len(row) > limit:
            order = 1 + generator.choice(len(row) - 1, limit - 1, replace=False)
        ids.append(np.append(row[0], row[order]))
        values.append(np.append(row_values[0], row_values[order]))
    lengths = [len(row) for row in ids]
    sampled = TokenStore(
        np.append(0, np.cumsum(lengths)), np.concatenate(ids), np.concatenate(values)
    )
    genes, values = padded(model, sampled)
    np.testing.assert_array_equal(genes, expected["tok_small_genes"])
    np.testing.assert_array_equal(values, expected["tok_small_values"])


def test_our_sample_keeps_cls_and_known_tokens(model, cells, expected, meta):
    limit = meta["config"]["small_max_len"]
    short = scgpt.ScGPT(
        ModelConfig("short", {**model.config.values, "max_length": limit}, is_published_size=False),
        model.vocabulary,
    )
    genes, _ = padded(model, short.tokenise([cells], seed=0))
    assert genes.shape == expected["tok_small_genes"].shape
    np.testing.assert_array_equal(genes[:, 0], expected["tok_small_genes"][:, 0])
    pads = (expected["tok_small_genes"] == model.vocabulary["<pad>"]).sum(axis=1)
    np.testing.assert_array_equal((genes == model.vocabulary["<pad>"]).sum(axis=1), pads)
    for ours, whole in zip(genes, expected["tok_genes"], strict=True):
        assert set(ours) - {model.vocabulary["<pad>"]} <= set(whole)


@pytest.mark.parametrize(
    ("tokens", "prefix"), [("tok", ""), ("tok_small", "small_"), ("tok_zero", "zero_")]
)
def test_embedding_and_logits(model, network, expected, tokens, prefix):
    batch = batch_of(model, expected[f"{tokens}_genes"], expected[f"{tokens}_values"])
    embedding, logits = outputs(network, batch)
    assert_close(embedding, expected[f"{prefix}cell_emb"], "network")
    assert_close(logits, expected[f"{prefix}logits"], "network")


def test_last_layer_shortcut_changes_nothing(model, network, expected):
    batch = batch_of(model, expected["tok_genes"], expected["tok_values"])
    with torch.inference_mode():
        states = network.encode(**batch)
    assert_close(states[:, 0].numpy(), expected["cell_emb"], "network")


def test_three_training_steps(model, network, expected):
    recipe = model.recipe()
    optimizer = torch.optim.Adam(
        network.parameters(), lr=recipe.learning_rate, **recipe.optimizer_values
    )
    # The stored batch keeps the padding to the longest of all cells.
    batch = batch_of(model, expected["tok_genes"], expected["tok_values"], slice(0, N_TRAINED))
    losses, norms, clipped = train_steps(
        network,
        optimizer,
        batch,
        torch.from_numpy(expected["labels"][:N_TRAINED]),
        n_steps=len(expected["train_losses"]),
        clip_norm=recipe.clip_norm,
    )
    assert_close(losses, expected["train_losses"], "trained")
    assert_close(norms, expected["train_grad_norms"], "trained")
    # Adam hardly tells gradients from halved ones, so their clipping is looked at itself.
    assert_close(clipped, np.minimum(expected["train_grad_norms"], CLIPPED_AT), "trained")
    batch = batch_of(model, expected["tok_genes"], expected["tok_values"])
    assert_close(outputs(network, batch)[1], expected["logits_after_3_steps"], "trained")


def test_highly_variable_genes(model, cells, expected, meta):
    ids = ids_of(model, cells.var_names)
    chosen = cells[expected["hvg_cells"], ids >= 0].copy()
    genes = scgpt.select_hvg(chosen, meta["config"]["n_hvg"])
    np.testing.assert_array_equal(genes, expected["hvg_gene_names"])

    kept = chosen[:, np.asarray(chosen.X.sum(axis=0)).ravel() >= 3]
    entries = known_entries(kept.X, np.ones(kept.n_vars, dtype=bool))
    logged = log_normalise(entries)(entries.rows(), entries.values)
    is_chosen = kept.var_names.isin(genes)
    logged = dense(entries, logged, kept.n_vars)[:, is_chosen]
    assert_close(logged, expected["hvg_log1p"], "formula")

    entries = known_entries(chosen[:, genes].X, np.ones(len(genes), dtype=bool))
    bounds = bin_bounds(entries, model.sizes.n_bins, transform=log_normalise(entries))
    uniform = reference_generator(meta["seed"] + 3).random_sample(len(entries.values))
    binned = dense(entries, draw_bins(bounds, uniform), len(genes))
    np.testing.assert_array_equal(binned, expected["hvg_binned"])


def test_zero_shot_tokens(model, cells, expected, meta):
    """The reference embeds raw counts, and says so by another value of `<cls>`."""
    ids = ids_of(model, cells.var_names)
    entries = known_entries(cells.X, ids >= 0)
    uniform = reference_generator(meta["seed"] + 4).random_sample(len(entries.values))
    bins = draw_bins(bin_bounds(entries, model.sizes.n_bins), uniform)
    shown = np.flatnonzero(entries.lengths)
    np.testing.assert_array_equal(shown, expected["zeroshot_cells"])
    genes, values = padded(model, model.with_cls(entries, ids[entries.columns], bins))
    np.testing.assert_array_equal(genes[shown], expected["zeroshot_genes"])
    np.testing.assert_array_equal(values[shown, 1:], expected["zeroshot_values"][:, 1:])


def test_zero_shot_embedding(model, network, expected):
    batch = batch_of(model, expected["zeroshot_genes"], expected["zeroshot_values"])
    embedding, _ = outputs(network, batch)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    assert_close(embedding, expected["zeroshot_emb_l2"], "network")


def test_loading_accounts_for_every_tensor(loaded, loading):
    model, report = loaded
    own = model.network(2).state_dict()
    assert set(own) - set(report.fresh) == set(loading["loaded_from_pretrained"])
    assert set(report.fresh) == set(loading["freshly_initialised"])
    assert set(report.dropped) == set(loading["checkpoint_keys_unused_by_classifier"])
    naive = set(loading["naive_name_and_shape_match_keeps"])
    assert set(report.renamed.values()) == set(loading["loaded_from_pretrained"]) - naive
    assert report.share_loaded == 1.0
    assert report.n_loaded == len(loading["loaded_from_pretrained"])


def test_loaded_values_are_the_files(loaded):
    model, report = loaded
    tensors = read_tensors(FOLDER / "pretrained" / "best_model.pt")
    own = model.network(2).state_dict()
    for name, tensor in tensors.items():
        if name not in report.dropped:
            torch.testing.assert_close(own[rename(name)], tensor, rtol=0, atol=0)


def test_checkpoint_sizes_come_from_its_arguments(model, meta):
    config = meta["config"]
    wanted = {name: config[name] for name in ("embsize", "nheads", "d_hid", "nlayers", "n_bins")}
    assert replace(model.sizes, **wanted) == model.sizes
