"""Geneformer V1 and V2 against numbers of the reference, on small random weights."""

import json

import anndata as ad
import numpy as np
import pytest
import torch

from backend.config import golden_dir
from backend.models.base import ModelConfig, TokenBatch
from backend.models.checkpoints import fit_tensors, read_tensors
from backend.models.geneformer.model import Geneformer
from backend.models.geneformer.tokens import SPECIAL
from backend.models.unpickle import read_pickled_dict
from backend.training.recipe import parameter_groups
from tests.golden.tolerances import assert_close
from tests.golden.training import train_steps

ROOT = golden_dir() / "geneformer"
VERSIONS = sorted(path.parent.name for path in ROOT.glob("*/meta.json"))
pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not VERSIONS, reason=f"no fixtures at {ROOT}"),
]

N_COLLATED, N_TRAINED = 6, 8
CLIPPED_AT = 1.0


@pytest.fixture(scope="module", params=VERSIONS)
def folder(request):
    return ROOT / request.param


@pytest.fixture(scope="module")
def expected(folder):
    return dict(np.load(folder / "expected.npz"))


@pytest.fixture(scope="module")
def meta(folder):
    return json.loads((folder / "meta.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def loading(folder):
    return json.loads((folder / "loading.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def loaded(folder):
    return Geneformer.from_checkpoint(folder / "pretrained")


@pytest.fixture(scope="module")
def model(loaded):
    return loaded[0]


@pytest.fixture
def network(model, folder, meta):
    """The fine-tuned classifier, in evaluation mode."""
    network = model.network(meta["config"]["n_cls"])
    tensors = read_tensors(folder / "finetuned" / "model.safetensors")
    fit_tensors(network, tensors, display_name="Geneformer", unused=("*.position_ids",))
    return network.eval()


def read(folder, name="counts.h5ad"):
    return ad.read_h5ad(folder / name)


def shorter(model, length):
    """The same model with another input size."""
    values = {**model.config.values, "max_position_embeddings": length}
    return Geneformer(ModelConfig("short", values, is_published_size=False), model.dictionaries)


def padded(model, store, cells):
    batch = model.collate(store.take(np.asarray(cells)))
    return batch["input_ids"].numpy(), batch["attention_mask"].numpy().sum(axis=1)


def batch_of(model, expected, rows=slice(None)):
    """Return stored tokens as the network's input, through the model's own collation."""
    ids = [
        row[:length]
        for row, length in zip(expected["input_ids"][rows], expected["length"][rows], strict=True)
    ]
    return model.collate(TokenBatch(ids=ids, values=ids))


def known_cells(model, cells):
    """Return the cells with a known gene: those that the reference keeps."""
    return np.flatnonzero(model.rank(cells)[0].lengths)


def groups(tokens, ties):
    """Return the tokens of each tie group, in order."""
    return [set(tokens[ties == tie]) for tie in dict.fromkeys(ties)]


def assert_same_up_to_ties(ours, theirs, ranked, ties, n_special):
    """Compare two sequences of one cell, free inside tie groups, cut at the same length."""
    if n_special:
        np.testing.assert_array_equal(ours[[0, -1]], theirs[[0, -1]])
        ours, theirs = ours[1:-1], theirs[1:-1]
    assert len(ours) == len(theirs)
    start = 0
    for group in groups(ranked, ties):
        stop = start + len(group)
        if stop <= len(ours):
            assert set(ours[start:stop]) == group
        elif start < len(ours):
            assert set(ours[start:]) <= group
        start = stop
    assert start >= len(ours)


def test_cells_without_known_genes_are_the_references(model, folder, expected):
    np.testing.assert_array_equal(known_cells(model, read(folder)), expected["kept_cells"])
    dup = read(folder, "counts_dup.h5ad")
    np.testing.assert_array_equal(known_cells(model, dup), expected["dup_kept_cells"])


def test_ranked_genes(model, folder, expected):
    ranked, values = model.rank(read(folder))
    for row, cell in enumerate(expected["kept_cells"]):
        entries = slice(ranked.indptr[cell], ranked.indptr[cell + 1])
        is_gene = expected["rank_tokens"][row] >= 0
        assert_close(values[entries], expected["rank_values"][row][is_gene], "double")
        tokens, ties = expected["rank_tokens"][row][is_gene], expected["tie_group"][row][is_gene]
        start = 0
        for group in groups(tokens, ties):
            ours = ranked.columns[entries][start : start + len(group)]
            assert set(ours) == group
            # Ties are ours to order: by token, on every machine.
            assert list(ours) == sorted(ours)
            start += len(group)


def test_fixture_has_ties(expected):
    ties = expected["tie_group"]
    assert any((np.unique(row[row >= 0], return_counts=True)[1] > 1).any() for row in ties)


def test_input_ids(model, folder, meta, expected):
    store = model.tokenise([read(folder)])
    ids, lengths = padded(model, store, expected["kept_cells"])
    np.testing.assert_array_equal(lengths, expected["length"])
    for row, length in enumerate(lengths):
        is_gene = expected["rank_tokens"][row] >= 0
        assert_same_up_to_ties(
            ids[row][:length],
            expected["input_ids"][row][:length],
            expected["rank_tokens"][row][is_gene],
            expected["tie_group"][row][is_gene],
            meta["special_tokens"],
        )
        assert not ids[row][length:].any()


def test_truncated_input_ids(model, folder, meta, expected):
    short = shorter(model, meta["config"]["small_size"])
    ids, lengths = padded(short, short.tokenise([read(folder)]), expected["kept_cells"])
    np.testing.assert_array_equal(lengths, expected["small_length"])
    for row, length in enumerate(lengths):
        is_gene = expected["rank_tokens"][row] >= 0
        assert_same_up_to_ties(
            ids[row][:length],
            expected["small_input_ids"][row][:length],
            expected["rank_tokens"][row][is_gene],
            expected["tie_group"][row][is_gene],
            meta["special_tokens"],
        )


def test_columns_of_one_gene_are_summed(model, folder, meta, expected):
    cells = read(folder, "counts_dup.h5ad")
    assert any("summed" in note for note in model.check_input(cells).notes)
    ids, lengths = padded(model, model.tokenise([cells]), expected["dup_kept_cells"])
    np.testing.assert_array_equal(lengths, expected["dup_length"])
    ranked, values = model.rank(cells)
    for row, cell in enumerate(expected["dup_kept_cells"]):
        entries = slice(ranked.indptr[cell], ranked.indptr[cell + 1])
        theirs = expected["dup_rank_values"][row]
        theirs = theirs[theirs > 0]
        assert_close(values[entries], theirs, "double")
        # The fixture has no groups here: equal values are one.
        ties = np.cumsum(np.append(0, -np.diff(theirs) > 1e-9 * theirs[1:]))
        offset = 1 if meta["special_tokens"] else 0
        tokens = expected["dup_input_ids"][row][offset : offset + len(theirs)]
        assert_same_up_to_ties(
            ids[row][: lengths[row]],
            expected["dup_input_ids"][row][: lengths[row]],
            tokens,
            ties,
            meta["special_tokens"],
        )


def test_collation(model, expected):
    batch = batch_of(model, expected, slice(0, N_COLLATED))
    np.testing.assert_array_equal(batch["input_ids"], expected["collator_input_ids"])
    np.testing.assert_array_equal(batch["attention_mask"], expected["collator_attention_mask"])
    whole = batch_of(model, expected)
    np.testing.assert_array_equal(whole["attention_mask"], expected["attention_mask"])


def test_labels_are_in_the_order_of_the_class_file(folder, expected):
    names = json.loads((folder / "finetuned" / "id_class_dict.json").read_text(encoding="utf-8"))
    index = {name: int(label) for label, name in names.items()}
    types = read(folder).obs["cell_type"].iloc[expected["kept_cells"]]
    np.testing.assert_array_equal([index[name] for name in types], expected["labels"])
    np.testing.assert_array_equal(
        expected["collator_labels"], expected["labels"][: len(expected["collator_labels"])]
    )


@torch.inference_mode()
def test_logits_and_states(model, network, expected):
    batch = batch_of(model, expected)
    logits = network(**batch).numpy()
    assert_close(logits, expected["logits"], "network")
    np.testing.assert_array_equal(logits.argmax(axis=1), expected["predictions"])
    output = network.bert(**batch)
    first = output.last_hidden_state[:, 0]
    assert_close(first, expected["first_token_last_hidden"], "network")
    assert_close(output.pooler_output, expected["pooled"], "network")


@torch.inference_mode()
def test_embeddings(model, network, meta, expected):
    batch = batch_of(model, expected)
    states = network.bert(**batch, output_hidden_states=True).hidden_states
    tokens = model.dictionaries.tokens
    special = torch.tensor([tokens[name] for name in SPECIAL if name in tokens])
    is_gene = (~torch.isin(batch["input_ids"], special)).unsqueeze(-1)
    for name, layer in (("mean_emb_last", -1), ("mean_emb_second_to_last", -2)):
        mean = (states[layer] * is_gene).sum(dim=1) / is_gene.sum(dim=1)
        assert_close(mean, expected[name], "network")
    assert ("cls_emb_last" in expected) == meta["special_tokens"]
    if meta["special_tokens"]:
        assert_close(states[-1][:, 0], expected["cls_emb_last"], "network")


def test_three_training_steps(model, network, expected):
    recipe = model.recipe()
    optimizer = torch.optim.AdamW(
        parameter_groups(network, recipe), lr=recipe.learning_rate, betas=(0.9, 0.999), eps=1e-8
    )
    losses, norms, clipped = train_steps(
        network,
        optimizer,
        batch_of(model, expected, slice(0, N_TRAINED)),
        torch.from_numpy(expected["labels"][:N_TRAINED]),
        n_steps=len(expected["train_losses"]),
        clip_norm=recipe.clip_norm,
    )
    assert_close(losses, expected["train_losses"], "trained")
    assert_close(norms, expected["train_grad_norms"], "trained")
    # Adam hardly tells gradients from halved ones, so their clipping is looked at itself.
    assert_close(clipped, np.minimum(expected["train_grad_norms"], CLIPPED_AT), "trained")
    with torch.inference_mode():
        logits = network(**batch_of(model, expected))
    assert_close(logits, expected["logits_after_3_steps"], "trained")


def test_all_but_biases_and_norms_decay(model, network):
    """Three steps are too few to show it: they shrink weights by less than rounding."""
    spared = {id(x) for name, x in network.named_parameters() if name.endswith(".bias")}
    for module in network.modules():
        if isinstance(module, torch.nn.LayerNorm):
            spared |= {id(x) for x in module.parameters()}
    decay = {
        id(x): group["weight_decay"]
        for group in parameter_groups(network, model.recipe())
        for x in group["params"]
    }
    assert decay == {id(x): 0.0 if id(x) in spared else 0.001 for x in network.parameters()}


def test_loading_accounts_for_every_tensor(loaded, loading, folder, meta):
    model, report = loaded
    own = model.network(meta["config"]["n_cls"])
    shapes = {name: list(tensor.shape) for name, tensor in own.state_dict().items()}
    assert shapes == loading["classifier_keys"]
    assert sum(p.numel() for p in own.parameters()) == loading["parameter_count_classifier"]
    assert set(report.fresh) == set(loading["fresh_in_classifier"])
    assert set(report.dropped) - {"bert.embeddings.position_ids"} == set(
        loading["dropped_from_pretrained"]
    )
    assert report.share_loaded == 1.0
    for name, tensor in read_tensors(folder / "pretrained" / "model.safetensors").items():
        if name not in report.dropped:
            torch.testing.assert_close(own.state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    "name", ["token_dictionary", "gene_median_dictionary", "ensembl_mapping_dict"]
)
def test_pickled_dictionaries_equal_their_json(folder, name):
    place = folder / "dictionaries"
    as_json = json.loads((place / f"{name}.json").read_text(encoding="utf-8"))
    assert read_pickled_dict(place / f"{name}.pkl") == as_json
