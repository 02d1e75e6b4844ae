"""scFoundation against numbers of its reference implementation, on small random weights."""

import json
from dataclasses import replace
from fnmatch import fnmatchcase

import anndata as ad
import numpy as np
import pytest
import torch

from backend.config import golden_dir
from backend.models.catalogue import add
from backend.models.gene_panel import align_to_panel, model_config, read_gene_list
from backend.models.scfoundation import model as scfoundation
from backend.models.scfoundation.network import (
    ScFoundationAutoencoder,
    ScFoundationClassifier,
    ScFoundationSizes,
)
from backend.models.scfoundation.tokens import prepare_values
from backend.training.finetune import Classifier
from tests.golden.tolerances import assert_close
from tests.published import published_table, write_published

FOLDER = golden_dir() / "scfoundation"
pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no fixtures at {FOLDER}"),
]
SINGLE_CELL = ("f1", "a5", "t4")


@pytest.fixture(scope="module")
def manifest():
    return json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))


def arrays(name):
    return dict(np.load(FOLDER / f"{name}.npz"))


@pytest.fixture(scope="module")
def adata():
    return ad.read_h5ad(FOLDER / "raw_counts.h5ad")


@pytest.fixture(scope="module")
def panel():
    return read_gene_list(FOLDER / "gene_index.tsv")


@pytest.fixture(scope="module")
def aligned(adata, panel):
    return align_to_panel(adata.X, adata.var_names, panel)


@pytest.fixture(scope="module")
def preprocess():
    return arrays("preprocess")


@pytest.fixture(scope="module")
def embeddings():
    return arrays("embeddings")


@pytest.fixture(scope="module")
def head():
    return arrays("finetune_head")


@pytest.fixture(scope="module")
def valid(preprocess):
    return np.flatnonzero(preprocess["valid_mask"])


@pytest.fixture(scope="module")
def sizes(manifest):
    config = manifest["config"]
    return ScFoundationSizes(
        dim=config["enc_dim"],
        depth=config["enc_depth"],
        heads=config["enc_heads"],
        n_bins=config["bin_num"],
        hidden=config["hidden"],
        pad_token_id=config["pad_token_id"],
        mask_token_id=config["mask_token_id"],
        decoder_dim=config["dec_dim"],
        decoder_depth=config["dec_depth"],
        decoder_heads=config["dec_heads"],
        decoder_dim_head=config["dec_dim_head"],
    )


@pytest.fixture(scope="module")
def entries():
    file = torch.load(FOLDER / "models_tiny.ckpt", weights_only=True)
    return {
        name: {key.removeprefix("model."): value for key, value in part["state_dict"].items()}
        for name, part in file.items()
    }


@pytest.fixture(scope="module")
def autoencoder(sizes, panel, entries):
    def build(entry, **options):
        network = ScFoundationAutoencoder(replace(sizes, **options), len(panel))
        network.load_state_dict(entries[entry])
        return network.eval()

    return build


@pytest.fixture(scope="module")
def classifier(sizes, panel, manifest):
    def build(**options):
        n_classes = manifest["config"]["n_class"]
        network = ScFoundationClassifier(replace(sizes, **options), len(panel), n_classes)
        file = torch.load(FOLDER / "finetune_tiny.pth", weights_only=True)
        network.load_state_dict(file["model_state_dict"])
        return network.eval()

    return build


@pytest.fixture(scope="module")
def model(sizes, panel, entries):
    def build(entry="cell", **options):
        config = model_config("fixture", replace(sizes, **options))
        return scfoundation.ScFoundation(config, panel, weights=entries[entry])

    return build


def test_counts_are_aligned_exactly(aligned, preprocess):
    np.testing.assert_array_equal(aligned.toarray(), preprocess["aligned_counts"])
    np.testing.assert_array_equal(aligned.sum(axis=1).A1, preprocess["total_count"])


def test_log_values_match(aligned, preprocess):
    values, _, source = prepare_values(aligned)
    has_counts = np.isfinite(preprocess["lognorm"]).all(axis=1)
    assert_close(values.toarray()[has_counts], preprocess["lognorm"][has_counts], "formula")
    np.testing.assert_array_equal(source > 0, preprocess["valid_mask"])


@pytest.mark.parametrize("resolution", SINGLE_CELL)
def test_model_input_matches(aligned, preprocess, valid, resolution):
    values, target, source = prepare_values(aligned, resolution=resolution)
    ours = np.column_stack([values.toarray(), target, source])
    assert_close(ours[valid], preprocess[f"model_input_{resolution}"][valid], "formula")


@pytest.fixture(scope="module")
def packed(model, adata, valid):
    """Return the valid cells at t4 as the reference packs them."""
    adapter = model(depth_tokens=True, pool_padding=True)
    return adapter.collate(adapter.tokenise([adata[:4], adata[4:]], seed=0).take(valid))


def test_gathered_tokens_match_exactly(packed, preprocess, model, adata, valid):
    np.testing.assert_array_equal(packed["gene_ids"], preprocess["gathered_gene_ids_t4_batch"])
    np.testing.assert_array_equal(packed["padding"], preprocess["gathered_padding_t4_batch"])
    assert_close(packed["values"], preprocess["gathered_values_t4_batch"], "formula")
    adapter = model(depth_tokens=True)
    ids = adapter.collate(adapter.tokenise([adata], seed=0).take(valid))["gene_ids"]
    np.testing.assert_array_equal(ids, preprocess["encdec_encoder_gene_ids"])


def test_value_embedding(autoencoder):
    expected = arrays("value_embedding_and_encoder")
    embedding = autoencoder("cell").token_emb
    values = torch.as_tensor(expected["values"])
    assert_close(embedding(values), expected["value_embedding"], "formula")
    assert_close(embedding.bin_weights(values), expected["bin_weights"], "formula")


def test_encoder(autoencoder, packed):
    expected = arrays("value_embedding_and_encoder")
    network = autoencoder("cell")
    embedded = network.embedded(packed["values"], packed["gene_ids"])
    assert_close(embedded, expected["encoder_in_t4_batch"], "formula")
    assert_close(network.encode(**packed), expected["encoder_out_t4_batch_grad_enabled"], "network")
    with torch.no_grad():
        assert_close(network.encode(**packed), expected["encoder_out_t4_batch"], "network")


def pooled(encoded, padding, pooling):
    """Pool the encodings of a cell, whose last two tokens are T and S, as the reference does."""
    n_tokens = (~padding).sum(dim=1)
    if pooling == "max":
        return torch.stack([x[:n].amax(dim=0) for x, n in zip(encoded, n_tokens, strict=True)])
    return torch.stack(
        [
            torch.cat([x[n - 1], x[n - 2], x[: n - 2].amax(dim=0), x[: n - 2].mean(dim=0)])
            for x, n in zip(encoded, n_tokens, strict=True)
        ]
    )


@torch.no_grad()
@pytest.mark.parametrize("resolution", SINGLE_CELL)
@pytest.mark.parametrize("entry", ["cell", "rde"])
def test_cell_embeddings(autoencoder, model, adata, embeddings, valid, entry, resolution):
    adapter = model(entry, resolution=resolution, depth_tokens=True)
    tokens = adapter.tokenise([adata[:6], adata[6:]], seed=0)
    batch = adapter.collate(tokens.take(valid))
    encoded = autoencoder(entry).encode(**batch)
    expected = embeddings[f"{entry}_all_{resolution}_F"][valid]
    assert_close(pooled(encoded, batch["padding"], "all"), expected, "network")
    if (entry, resolution) == ("cell", "t4"):
        expected = embeddings["cell_max_t4_F"][valid]
        assert_close(pooled(encoded, batch["padding"], "max"), expected, "network")


@torch.no_grad()
@pytest.mark.parametrize("key_maximum", ["cell", "batch"])
def test_decoder(autoencoder, model, adata, aligned, embeddings, key_maximum):
    rows = embeddings["gene_cells"]
    network = autoencoder("gene", key_maximum=key_maximum)
    adapter = model("gene", resolution="f1", depth_tokens=True)
    batch = adapter.collate(adapter.tokenise([adata], seed=0).take(rows))
    values, target, source = prepare_values(aligned, resolution="f1")
    everything = np.column_stack([values.toarray(), target, source])[rows]
    batch["everything"] = torch.as_tensor(everything, dtype=torch.float32)
    name = "gene_f1_F" if key_maximum == "cell" else "gene_batch_f1_F"
    assert_close(network.gene_embeddings(**batch), embeddings[name], "network")
    if key_maximum == "cell":
        assert_close(network.expression(**batch), embeddings["gene_expression_f1_F"], "network")


@torch.no_grad()
def test_classifier_one_cell_at_a_time(classifier, model, adata, head):
    adapter = model("gene")
    store = adapter.tokenise([adata], seed=0)
    network = classifier()
    batch = adapter.collate(store.take(head["finetune_cells"]))
    # Padding is ignored, so a batch gives what single cells give.
    assert_close(network.pooled(**batch), head["max_pooled_single"], "network")
    assert_close(network(**batch), head["logits_single"], "network")
    single = [
        network(**adapter.collate(store.take(np.array([row])))) for row in head["finetune_cells"]
    ]
    assert_close(torch.cat(single), head["logits_single"], "network")


@pytest.fixture(scope="module")
def reference_batch(model, adata, head):
    """Return the reference's only batch: padding takes part in the maximum."""
    adapter = model("gene", pool_padding=True)
    return adapter.collate(adapter.tokenise([adata], seed=0).take(head["finetune_cells"]))


def test_classifier_in_the_references_batch(classifier, reference_batch, head):
    network = classifier(pool_padding=True)
    assert_close(network(**reference_batch), head["logits_batch"], "network")


@pytest.fixture
def folder(tmp_path):
    """Return the files under the names that the authors give them."""
    for ours, theirs in (
        ("models_tiny.ckpt", "models.ckpt"),
        ("gene_index.tsv", "OS_scRNA_gene_index.19264.tsv"),
    ):
        (tmp_path / theirs).write_bytes((FOLDER / ours).read_bytes())
    return tmp_path


@torch.no_grad()
def test_checkpoint_folder_is_read(folder, adata, head, sizes, manifest):
    model, report = scfoundation.ScFoundation.from_checkpoint(folder)
    assert report.share_loaded == 1
    assert report.fresh == report.dropped == ()
    for name in ("dim", "depth", "heads", "n_bins", "pad_token_id", "decoder_dim"):
        assert getattr(model.sizes, name) == getattr(sizes, name)
    batch = model.collate(model.tokenise([adata], seed=0).take(head["finetune_cells"]))
    network = model.network(manifest["config"]["n_class"]).eval()
    assert_close(network.pooled(**batch), head["max_pooled_single"], "network")


@pytest.mark.parametrize("init", ["pretrained", "frozen"])
def test_registered_checkpoint_is_fine_tuned(folder, tmp_path, monkeypatch, adata, init):
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))
    add("scfoundation", folder)
    typer = Classifier("scfoundation", "scfoundation.cell_01b", init, "cell_01b", {"max_steps": 2})
    typer.fit(adata, label_key="celltype", valid=adata[:0].copy(), seed=0)
    before = scfoundation.ScFoundation.from_checkpoint(folder)[0].network(2).state_dict()
    after = typer._network.state_dict()
    changed = {
        name
        for name in before
        if not name.startswith(("fc1.", "norm.")) and not torch.equal(before[name], after[name])
    }
    assert all(name.startswith("encoder.transformer_encoder.") for name in changed)
    assert bool(changed) == (init == "pretrained")
    assert typer.load_report_.share_loaded == 1
    assert np.isfinite(typer.predict(adata).proba).all()


def freeze(network, patterns):
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))


def test_loss_and_gradients(classifier, reference_batch, head, model, manifest):
    network = classifier(pool_padding=True)
    freeze(network, model("gene").recipe().trainable)
    trainable = [name for name, value in network.named_parameters() if value.requires_grad]
    assert sorted(trainable) == sorted(manifest["trainable_in_finetuning"])

    labels = torch.as_tensor(head["labels"][head["finetune_cells"]])
    loss = torch.nn.functional.cross_entropy(network(**reference_batch), labels)
    loss.backward()
    assert_close(loss, head["loss_batch_eval"], "network")
    prefix = "grad_eval__"
    norms = {name[len(prefix) :]: x for name, x in head.items() if name.startswith(prefix)}
    gradients = {
        name: value.grad.norm().item()
        for name, value in network.named_parameters()
        if value.requires_grad
    }
    assert sorted(gradients) == sorted(norms)
    for name, norm in norms.items():
        assert_close(gradients[name], norm, "trained", name=name)


def test_labels_are_sorted_names(adata, head):
    codes = np.unique(adata.obs["celltype"].astype(str), return_inverse=True)[1]
    np.testing.assert_array_equal(codes, head["labels"])


def test_full_size_network_has_the_published_tensors():
    published = published_table("scfoundation")
    keys = published["keys_without_model_prefix"]
    config = scfoundation.ScFoundation.presets["cell_01b"]
    n_genes = keys["pos_emb.weight"][0][0] - 3
    with torch.device("meta"):
        network = ScFoundationAutoencoder(ScFoundationSizes(**config.values), n_genes)
    ours = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert ours == {name: shape for name, (shape, _) in keys.items()}
    n_parameters = sum(value.numel() for value in network.parameters())
    assert n_parameters == published["param_count"]


@pytest.mark.slow
def test_full_size_checkpoint_loads(tmp_path):
    write_published("scfoundation.cell_01b", tmp_path)
    model, report = scfoundation.ScFoundation.from_checkpoint(tmp_path)
    assert report.share_loaded == 1
    assert report.n_loaded == published_table("scfoundation")["n_keys"]
    assert model.config.is_published_size
