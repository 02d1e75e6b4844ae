"""scFoundation against numbers of its reference implementation, on small random weights."""

import json
from dataclasses import replace
from fnmatch import fnmatchcase

import anndata as ad
import numpy as np
import pytest
import torch

from backend.config import golden_dir
from backend.models.base import TokenStore
from backend.models.catalogue import add
from backend.models.gene_panel import align_to_panel, read_gene_list
from backend.models.scfoundation import model as scfoundation
from backend.models.scfoundation.network import (
    ScFoundationAutoencoder,
    ScFoundationClassifier,
    ScFoundationSizes,
)
from backend.models.scfoundation.tokens import prepare_values
from backend.training.finetune import Classifier

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
        config = scfoundation.model_config("fixture", replace(sizes, **options))
        return scfoundation.ScFoundation(config, panel, weights=entries[entry])

    return build


def token_store(values, target, source):
    depths = {"target_depth": target, "source_depth": source}
    return TokenStore(values.indptr.astype(np.int64), values.indices, values.data, depths)


def close(actual, expected, atol, rtol=0.0):
    if isinstance(actual, torch.Tensor):
        actual = actual.detach().numpy()
    np.testing.assert_allclose(actual, expected, atol=atol, rtol=rtol)


def test_counts_are_aligned_exactly(aligned, preprocess):
    np.testing.assert_array_equal(aligned.toarray(), preprocess["aligned_counts"])
    np.testing.assert_array_equal(aligned.sum(axis=1).A1, preprocess["total_count"])


def test_log_values_match(aligned, preprocess):
    values, _, source = prepare_values(aligned)
    has_counts = np.isfinite(preprocess["lognorm"]).all(axis=1)
    close(values.toarray()[has_counts], preprocess["lognorm"][has_counts], atol=1e-5)
    np.testing.assert_array_equal(source > 0, preprocess["valid_mask"])


@pytest.mark.parametrize("resolution", SINGLE_CELL)
def test_model_input_matches(aligned, preprocess, valid, resolution):
    values, target, source = prepare_values(aligned, resolution=resolution)
    ours = np.column_stack([values.toarray(), target, source])
    close(ours[valid], preprocess[f"model_input_{resolution}"][valid], atol=1e-5)


@pytest.fixture(scope="module")
def packed(model, adata, valid):
    """Return the valid cells at t4 as the reference packs them."""
    adapter = model(depth_tokens=True, pool_padding=True)
    return adapter.collate(adapter.tokenise([adata[:4], adata[4:]], seed=0).take(valid))


def test_gathered_tokens_match_exactly(packed, preprocess, model, adata, valid):
    np.testing.assert_array_equal(packed["gene_ids"], preprocess["gathered_gene_ids_t4_batch"])
    np.testing.assert_array_equal(packed["padding"], preprocess["gathered_padding_t4_batch"])
    close(packed["values"], preprocess["gathered_values_t4_batch"], atol=1e-5)
    adapter = model(depth_tokens=True)
    ids = adapter.collate(adapter.tokenise([adata], seed=0).take(valid))["gene_ids"]
    np.testing.assert_array_equal(ids, preprocess["encdec_encoder_gene_ids"])


def test_value_embedding(autoencoder):
    expected = arrays("value_embedding_and_encoder")
    embedding = autoencoder("cell").token_emb
    values = torch.as_tensor(expected["values"])
    close(embedding(values), expected["value_embedding"], atol=1e-6)
    close(embedding.bin_weights(values), expected["bin_weights"], atol=1e-6)


def test_encoder(autoencoder, packed):
    expected = arrays("value_embedding_and_encoder")
    network = autoencoder("cell")
    embedded = network.embedded(packed["values"], packed["gene_ids"])
    close(embedded, expected["encoder_in_t4_batch"], atol=1e-6)
    close(network.encode(**packed), expected["encoder_out_t4_batch_grad_enabled"], atol=2e-5)
    with torch.no_grad():
        close(network.encode(**packed), expected["encoder_out_t4_batch"], atol=2e-5)


@pytest.mark.parametrize("resolution", SINGLE_CELL)
@pytest.mark.parametrize("entry", ["cell", "rde"])
def test_cell_embeddings(model, adata, embeddings, valid, entry, resolution, caplog):
    values = model(entry, resolution=resolution).embed(
        [adata[:6], adata[6:]], pooling="all", device="cpu"
    )
    expected = embeddings[f"{entry}_all_{resolution}_F"]
    close(values[valid], expected[valid], atol=2e-5)
    invalid = np.setdiff1d(np.arange(len(values)), valid)
    assert np.isnan(values[invalid]).all()
    assert ("no embedding" in caplog.text) == (len(invalid) > 0)


def test_cell_embeddings_with_max_pooling(model, adata, embeddings, valid):
    values = model().embed([adata], pooling="max", device="cpu")
    close(values[valid], embeddings["cell_max_t4_F"][valid], atol=2e-5)


@pytest.mark.parametrize("pre_normalized", ["T", "A"])
def test_cell_embeddings_of_normalised_values(
    model, aligned, preprocess, embeddings, valid, pre_normalized
):
    normalised = prepare_values(aligned)[0]
    totals = preprocess["total_count"] if pre_normalized == "A" else None
    inputs = prepare_values(
        normalised[valid],
        pre_normalized=pre_normalized,
        resolution="f1",
        totals=None if totals is None else totals[valid],
    )
    values = model().embed_tokens(token_store(*inputs), pooling="all")
    close(values, embeddings[f"cell_all_f1_{pre_normalized}"][valid], atol=2e-5)


@pytest.mark.parametrize("pre_normalized", ["F", "T"])
def test_bulk_embeddings(model, aligned, embeddings, valid, pre_normalized):
    matrix = aligned if pre_normalized == "F" else prepare_values(aligned)[0]
    inputs = prepare_values(matrix[valid], input_type="bulk", pre_normalized=pre_normalized)
    values = model().embed_tokens(token_store(*inputs), pooling="all")
    close(values, embeddings[f"bulk_all_{pre_normalized}"][valid], atol=2e-5)


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
    close(network.gene_embeddings(**batch), embeddings[name], atol=2e-5)
    if key_maximum == "cell":
        close(network.expression(**batch), embeddings["gene_expression_f1_F"], atol=2e-5)


@torch.no_grad()
def test_classifier_one_cell_at_a_time(classifier, model, adata, head):
    adapter = model("gene")
    store = adapter.tokenise([adata], seed=0)
    network = classifier()
    batch = adapter.collate(store.take(head["finetune_cells"]))
    # Padding is ignored, so a batch gives what single cells give.
    close(network.pooled(**batch), head["max_pooled_single"], atol=2e-5)
    close(network(**batch), head["logits_single"], atol=5e-5)
    single = [
        network(**adapter.collate(store.take(np.array([row])))) for row in head["finetune_cells"]
    ]
    close(torch.cat(single), head["logits_single"], atol=5e-5)


@pytest.fixture(scope="module")
def reference_batch(model, adata, head):
    """Return the reference's only batch: padding takes part in the maximum."""
    adapter = model("gene", pool_padding=True)
    return adapter.collate(adapter.tokenise([adata], seed=0).take(head["finetune_cells"]))


def test_classifier_in_the_references_batch(classifier, reference_batch, head):
    network = classifier(pool_padding=True)
    close(network(**reference_batch), head["logits_batch"], atol=5e-5)


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
def test_checkpoint_folder_is_read(folder, adata, embeddings, valid, head, sizes, manifest):
    model, report = scfoundation.ScFoundation.from_checkpoint(folder)
    assert report.share_loaded == 1
    assert report.fresh == report.dropped == ()
    for name in ("dim", "depth", "heads", "n_bins", "pad_token_id", "decoder_dim"):
        assert getattr(model.sizes, name) == getattr(sizes, name)
    values = model.embed([adata], pooling="all", device="cpu")
    close(values[valid], embeddings["cell_all_t4_F"][valid], atol=2e-5)
    batch = model.collate(model.tokenise([adata], seed=0).take(head["finetune_cells"]))
    network = model.network(manifest["config"]["n_class"]).eval()
    close(network.pooled(**batch), head["max_pooled_single"], atol=2e-5)


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
    close(loss, head["loss_batch_eval"], atol=1e-5)
    prefix = "grad_eval__"
    norms = {name[len(prefix) :]: x for name, x in head.items() if name.startswith(prefix)}
    gradients = {
        name: value.grad.norm().item()
        for name, value in network.named_parameters()
        if value.requires_grad
    }
    assert sorted(gradients) == sorted(norms)
    for name, norm in norms.items():
        np.testing.assert_allclose(gradients[name], norm, rtol=1e-3, err_msg=name)


def test_labels_are_sorted_names(adata, head):
    codes = np.unique(adata.obs["celltype"].astype(str), return_inverse=True)[1]
    np.testing.assert_array_equal(codes, head["labels"])


def test_full_size_network_has_the_published_tensors():
    published = json.loads((FOLDER / "full_size_manifest.json").read_text(encoding="utf-8"))
    keys = published["keys_without_model_prefix"]
    config = scfoundation.ScFoundation.presets["cell_01b"]
    n_genes = keys["pos_emb.weight"][0][0] - 3
    with torch.device("meta"):
        network = ScFoundationAutoencoder(scfoundation.sizes_of(config), n_genes)
    ours = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert ours == {name: shape for name, (shape, _) in keys.items()}
    n_parameters = sum(value.numel() for value in network.parameters())
    assert n_parameters == published["param_count"]


@pytest.mark.slow
def test_full_size_checkpoint_loads(tmp_path):
    published = json.loads((FOLDER / "full_size_manifest.json").read_text(encoding="utf-8"))
    keys = published["keys_without_model_prefix"]
    # Both weight sets share their tensors, so that the file has half a gigabyte.
    state = {
        f"model.{name}": torch.zeros(shape, dtype=getattr(torch, dtype))
        for name, (shape, dtype) in keys.items()
    }
    tiny = torch.load(FOLDER / "models_tiny.ckpt", weights_only=True)["gene"]["config"]
    sizes = scfoundation.sizes_of(scfoundation.ScFoundation.presets["cell_01b"])
    values = tiny["model_config"][tiny["model"]] | {"bin_num": sizes.n_bins}
    values["encoder"] |= {"hidden_dim": sizes.dim, "depth": sizes.depth, "heads": sizes.heads}
    values["decoder"] |= {
        "hidden_dim": sizes.decoder_dim,
        "depth": sizes.decoder_depth,
        "heads": sizes.decoder_heads,
        "dim_head": sizes.decoder_dim_head,
    }
    config = tiny | {
        "model_config": {tiny["model"]: values},
        "dataset_config": {"rnaseq": {"bin_num": sizes.n_bins}},
    }
    entry = {"config": config, "state_dict": state}
    torch.save({"gene": entry, "cell": entry, "rde": entry}, tmp_path / "models.ckpt")
    n_genes = len(state["model.pos_emb.weight"]) - 3
    rows = "".join(f"GENE{i}\t{i}\n" for i in range(n_genes))
    index = tmp_path / "OS_scRNA_gene_index.19264.tsv"
    index.write_text("gene_name\tindex\n" + rows, encoding="utf-8")
    model, report = scfoundation.ScFoundation.from_checkpoint(tmp_path)
    assert report.share_loaded == 1
    assert report.n_loaded == published["n_keys"]
    assert model.config.is_published_size
