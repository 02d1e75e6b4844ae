"""scBERT against numbers of its reference implementation, on small random weights."""

import fnmatch
import json
import warnings
from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import torch

from backend.config import golden_dir
from backend.models.catalogue import add
from backend.models.gene_panel import align_to_panel, model_config, read_gene_list
from backend.models.performer import KERNEL_EPSILON
from backend.models.scbert import model as scbert
from backend.models.scbert.checkpoint import PUBLISHED
from backend.models.scbert.network import ScBertNetwork, ScBertSizes
from backend.models.scbert.tokens import counts_per_10k, passes_gene_filter
from backend.training.finetune import Classifier
from backend.training.recipe import make_optimizer, make_schedule
from tests.golden.tolerances import assert_close
from tests.published import published_table, write_published

FOLDER = golden_dir() / "scbert"
pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no fixtures at {FOLDER}"),
]


@pytest.fixture(scope="module")
def manifest():
    return json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))


def arrays(name):
    return dict(np.load(FOLDER / f"{name}.npz"))


def table(name, panel_name):
    """Return the aligned counts of a table, as a user's file would give them."""
    panel = read_gene_list(FOLDER / panel_name)
    with warnings.catch_warnings():
        # One symbol is repeated on purpose.
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        adata = ad.read_h5ad(FOLDER / name)
    return align_to_panel(adata.X, adata.var_names, panel), adata, panel


@pytest.fixture(scope="module")
def aligned():
    return table("raw_counts.h5ad", "panel.txt")[0]


@pytest.fixture(scope="module")
def preprocess():
    return arrays("preprocess")


@pytest.fixture(scope="module")
def encoder():
    return arrays("encoder")


@pytest.fixture(scope="module")
def head():
    return arrays("finetune_head")


@pytest.fixture(scope="module")
def tokens(preprocess):
    return torch.as_tensor(preprocess["tokens"])


def states(name):
    return torch.load(FOLDER / name, weights_only=True)["model_state_dict"]


@pytest.fixture(scope="module")
def sizes(manifest):
    config = manifest["config"]
    return ScBertSizes(**{name: config[name] for name in ("dim", "depth", "heads", "dim_head")})


def network(sizes, file, *, n_genes, n_classes, **options):
    """Build a network with the weights of a fixture file; every tensor must fit."""
    built = ScBertNetwork(replace(sizes, **options), n_genes, n_classes)
    built.load_state_dict(states(file))
    return built.eval()


@pytest.fixture(scope="module")
def pretrained(sizes, aligned):
    def build(**options):
        return network(
            sizes,
            "panglao_pretrain_tiny.pth",
            n_genes=aligned.shape[1],
            n_classes=None,
            **options,
        )

    return build


@pytest.fixture(scope="module")
def finetuned(sizes, aligned, manifest):
    def build(**options):
        return network(
            sizes,
            "finetune_tiny_best.pth",
            n_genes=aligned.shape[1],
            n_classes=manifest["config"]["n_class"],
            **options,
        )

    return build


def test_counts_are_aligned_exactly(aligned, preprocess):
    np.testing.assert_array_equal(aligned.toarray(), preprocess["aligned_counts"])


def log_normalise(aligned):
    return np.log2(1 + counts_per_10k(aligned).toarray()).astype(np.float32)


def test_log_values_match(aligned, preprocess):
    assert_close(log_normalise(aligned), preprocess["lognorm"], "formula")


def test_tokens_match_exactly(sizes, preprocess):
    _, adata, panel = table("raw_counts.h5ad", "panel.txt")
    model = scbert.ScBert(model_config("fixture", sizes), panel)
    store = model.tokenise([adata[:5], adata[5:]], seed=0)
    batch = model.collate(store.take(np.arange(len(store))))
    np.testing.assert_array_equal(batch["tokens"].numpy(), preprocess["tokens"])


def test_gene_filter_keeps_the_same_cells(aligned, preprocess, manifest):
    kept = passes_gene_filter(aligned, manifest["config"]["min_genes"])
    np.testing.assert_array_equal(kept, preprocess["kept_mask"])
    n_genes = np.diff(aligned.indptr)[kept]
    np.testing.assert_array_equal(n_genes, preprocess["n_genes_obs"])


def test_gene_filter_at_the_published_threshold():
    expected = arrays("filter_case")
    aligned = table("filter_case.h5ad", "filter_case_panel.txt")[0]
    kept = passes_gene_filter(aligned)
    np.testing.assert_array_equal(np.diff(aligned.indptr), expected["n_genes_in_panel"])
    np.testing.assert_array_equal(kept, expected["kept_mask"])
    assert_close(log_normalise(aligned[kept]), expected["lognorm_kept"], "formula")


def test_embedding_of_tokens_and_genes(pretrained, tokens, encoder):
    assert_close(pretrained().embedded(tokens), encoder["embedded"], "formula")


@torch.no_grad()
def test_kernel_features_of_one_cell(pretrained, tokens, encoder):
    model = pretrained()
    block = model.performer.net.layers[0][0]
    x = block.norm(model.embedded(tokens[:1]))
    for name, project, is_query in (
        ("layer0_q_features_cell0_head0", block.fn.to_q, True),
        ("layer0_k_features_cell0_head0_single", block.fn.to_k, False),
    ):
        heads = project(x).unflatten(-1, (block.fn.heads, -1)).transpose(1, 2)
        features = block.fn.fast_attention.exponentials(heads, is_query=is_query) + KERNEL_EPSILON
        features = features * features.shape[-1] ** -0.5
        assert_close(features[0, 0], encoder[name], "network")


@torch.no_grad()
def test_attention_of_one_cell_and_of_a_batch(pretrained, tokens, encoder):
    for key_maximum in ("cell", "batch"):
        model = pretrained(key_maximum=key_maximum)
        block = model.performer.net.layers[0][0]
        outputs = []
        block.fn.fast_attention.register_forward_hook(lambda *args, to=outputs: to.append(args[-1]))
        block(model.embedded(tokens[:1]))
        assert_close(outputs[0][0], encoder["layer0_attn_out_cell0_single"], "network")
    result = block(model.embedded(tokens))
    assert_close(result, encoder["layer0_attn_block_out_batch"], "network")


@torch.no_grad()
def test_encodings_of_single_cells_are_the_default(pretrained, tokens, encoder):
    assert_close(pretrained().encode(tokens), encoder["encodings_single"], "network")


@torch.no_grad()
def test_encodings_of_the_references_batch(pretrained, tokens, encoder):
    model = pretrained(key_maximum="batch")
    assert_close(model.encode(tokens), encoder["encodings_batch"], "network")
    assert_close(model(tokens), encoder["mlm_logits"], "network")
    masked = torch.as_tensor(encoder["masked_tokens"])
    assert_close(model(masked), encoder["masked_mlm_logits"], "network")
    for i, cell in enumerate(tokens):
        assert_close(model.encode(cell[None])[0], encoder["encodings_single"][i], "network")


@torch.no_grad()
def test_head_of_the_references_batch(finetuned, tokens, head):
    model = finetuned(key_maximum="batch")
    seen = {}
    for name in ("conv1", "fc1", "fc2"):
        getattr(model.to_out, name).register_forward_hook(
            lambda *args, name=name: seen.update({name: args[-1]})
        )
    assert_close(model(tokens), head["logits_batch"], "network")
    assert_close(seen["conv1"], head["conv_out_batch"], "network")
    assert_close(seen["fc1"].relu(), head["fc1_relu_batch"], "network")
    assert_close(seen["fc2"].relu(), head["fc2_relu_batch"], "network")


@torch.no_grad()
def test_logits_of_single_cells_are_the_default(finetuned, tokens, head):
    logits = finetuned()(tokens)
    assert_close(logits, head["logits_single"], "network")
    assert_close(logits, head["logits_single_float64"], "network")
    proba = logits.softmax(dim=1)
    assert_close(proba, head["prob_single"], "network")


@torch.no_grad()
def test_activation_checkpointing_changes_no_number(finetuned, tokens, head):
    assert_close(finetuned(checkpoint_activations=True)(tokens), head["logits_single"], "network")


@torch.no_grad()
def test_cell_embeddings(finetuned, tokens, head):
    encoded = finetuned().encode(tokens)
    mean = encoded[:, :-1].mean(dim=1)
    assert_close(mean, head["cell_embedding_mean_genes_single"], "network")
    assert_close(encoded[:, -1], head["cell_embedding_last_token_single"], "network")


@pytest.fixture
def folder(tmp_path):
    """Return the files under the names that the authors give them."""
    for ours, theirs in (
        ("panglao_pretrain_tiny.pth", "panglao_pretrain.pth"),
        ("gene2vec.npy", "gene2vec_16906.npy"),
        ("panel.txt", "panglao_gene_order_16906.txt"),
    ):
        (tmp_path / theirs).write_bytes((FOLDER / ours).read_bytes())
    return tmp_path


@torch.no_grad()
def test_checkpoint_folder_is_read(folder, tokens, encoder, sizes):
    model, report = scbert.ScBert.from_checkpoint(folder)
    assert report.share_loaded == 1
    assert report.fresh == report.dropped == ()
    for name in ("dim", "depth", "heads", "dim_head", "n_bins"):
        assert getattr(model.sizes, name) == getattr(sizes, name)
    network = model.network(None).eval()
    assert_close(network.encode(tokens), encoder["encodings_single"], "network")


@pytest.mark.parametrize("init", ["pretrained", "frozen"])
def test_registered_checkpoint_is_fine_tuned(folder, tmp_path, monkeypatch, init):
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))
    add("scbert", folder)
    adata = table("raw_counts.h5ad", "panel.txt")[1]
    adata = adata[:, ~adata.var_names.duplicated()].copy()
    typer = Classifier("scbert", "scbert.panglao", init, "panglao", {"max_steps": 2})
    typer.fit(adata, label_key="celltype", valid=adata[:0].copy(), seed=0)
    before = scbert.ScBert.from_checkpoint(folder)[0].network(None).state_dict()
    after = typer._network.state_dict()
    changed = {
        name for name in before if name in after and not torch.equal(before[name], after[name])
    }
    trained = () if init == "frozen" else ("performer.net.layers.*", "norm.*")
    assert all(any(fnmatch.fnmatchcase(name, each) for each in trained) for name in changed)
    assert bool(changed) == (init == "pretrained")
    assert typer.load_report_.share_loaded == 1
    assert np.isfinite(typer.predict(adata).proba).all()


def test_labels_are_sorted_names(head):
    adata = table("raw_counts.h5ad", "panel.txt")[1]
    names, codes = np.unique(adata.obs["celltype"].astype(str), return_inverse=True)
    np.testing.assert_array_equal(names, head["label_names"])
    np.testing.assert_array_equal(codes, head["labels"])


def freeze(model, patterns):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def test_the_authors_layers_train(finetuned, sizes, manifest, aligned):
    model = finetuned()
    adapter = scbert.ScBert(
        model_config("fixture", sizes),
        panel=[str(i) for i in range(aligned.shape[1])],
        weights=states("panglao_pretrain_tiny.pth"),
    )
    freeze(model, adapter.recipe().trainable)
    trainable = [name for name, value in model.named_parameters() if value.requires_grad]
    assert sorted(trainable) == sorted(manifest["trainable_in_finetuning"])


def test_three_training_steps(finetuned, sizes, manifest, tokens, head):
    expected = arrays("train_steps")
    # The reference counts training forwards towards its silent redraw: the explicit option.
    model = finetuned(key_maximum="batch", redraw_features=True)
    model.train()
    freeze(model, manifest["trainable_in_finetuning"])
    parameters = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    labels = torch.as_tensor(head["labels"])
    gradients = {}
    for step, rows in enumerate(expected["micro_batches"]):
        loss = torch.nn.functional.cross_entropy(model(tokens[rows]), labels[rows])
        loss.backward()
        assert_close(loss, expected["losses"][step], "trained")
        if step == 0:
            gradients = {
                name: value.grad.norm().item()
                for name, value in model.named_parameters()
                if value.requires_grad
            }
        if step % 2 == 1:
            optimizer.step()
            optimizer.zero_grad()
    prefix = "grad_first__"
    norms = {name[len(prefix) :]: x for name, x in expected.items() if name.startswith(prefix)}
    assert sorted(gradients) == sorted(norms)
    for name, norm in norms.items():
        assert_close(gradients[name], norm, "trained", name=name)
    calls = int(model.performer.calls_since_last_redraw)
    assert calls == int(expected["calls_since_last_redraw_after"])
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(cell[None]) for cell in tokens])
    assert_close(logits, expected["logits_single_after"], "trained")


def test_learning_rates_of_the_authors():
    recipe = scbert.AUTHORS_RECIPE
    expected = arrays("lr_schedule")["lr_used_in_epoch"]
    optimizer = make_optimizer(torch.nn.Linear(1, 1), recipe)
    schedule = make_schedule(optimizer, recipe, steps_per_epoch=3)
    rates = []
    for _ in expected:
        rates.append(optimizer.param_groups[0]["lr"])
        for _ in range(3):
            optimizer.step()
            schedule.step()
    assert_close(rates, expected, "double")


def test_full_size_network_has_the_published_tensors():
    published = published_table("scbert")
    pretrained = published["pretrain"]
    keys = {name: shape for name, (shape, _) in pretrained["keys"].items()}
    n_genes = keys["pos_emb.emb.weight"][0] - 1
    sizes = PUBLISHED
    with torch.device("meta"):
        network = ScBertNetwork(sizes, n_genes, None)
    assert {name: list(value.shape) for name, value in network.state_dict().items()} == keys
    n_parameters = sum(value.numel() for value in network.parameters())
    assert n_parameters == pretrained["param_count_incl_frozen_pos_emb"]

    finetuned = next(part for name, part in published.items() if name != "pretrain")
    head = {name: shape for name, (shape, _) in finetuned["to_out_keys"].items()}
    n_classes = head["to_out.fc3.weight"][0]
    with torch.device("meta"):
        network = ScBertNetwork(sizes, n_genes, n_classes)
    ours = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert {name: ours[name] for name in ours if name.startswith("to_out.")} == head
    patterns = scbert.ScBert(scbert.ScBert.presets["panglao"], ["A"], weights={}).recipe().trainable
    freeze(network, patterns)
    n_trainable = sum(value.numel() for value in network.parameters() if value.requires_grad)
    assert n_trainable == finetuned["trainable"]


def test_full_size_checkpoint_loads(tmp_path):
    write_published("scbert.panglao", tmp_path)
    model, report = scbert.ScBert.from_checkpoint(tmp_path)
    assert report.share_loaded == 1
    assert report.n_loaded == published_table("scbert")["pretrain"]["n_keys"]
    assert model.config.is_published_size
