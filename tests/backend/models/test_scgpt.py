"""scGPT: order, scale and padding change nothing; wrong input is refused or counted."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend.config import golden_dir
from backend.errors import InputError, ModelUnavailable
from backend.models.base import ModelConfig, TokenBatch
from backend.models.ragged import known_entries
from backend.models.scgpt.checkpoint import rename
from backend.models.scgpt.model import ScGPT, select_hvg
from backend.models.scgpt.tokens import bin_bounds, draw_bins, log_normalise, subsample
from tests.published import published_table, write_published

SHARED = Path(__file__).parents[3].parent / "shared"
GOLDEN = golden_dir() / "scgpt"
needs_fixtures = pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden fixtures")

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


def cells_of(counts, genes=GENES):
    cells = ad.AnnData(sp.csr_matrix(np.asarray(counts, dtype=np.float32)))
    cells.obs_names = [f"cell{i}" for i in range(cells.n_obs)]
    cells.var_names = list(genes)
    return cells


@pytest.fixture(scope="module")
def model():
    return ScGPT.scratch(ScGPT.presets["small"], GENES, seed=0)


@pytest.fixture(scope="module")
def network(model):
    return model.network(3).eval()


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(1.5, (6, N_GENES)).astype(np.float32)


def tokens_of(store, cell):
    """Return gene to bin of one cell."""
    tokens = slice(store.indptr[cell] + 1, store.indptr[cell + 1])
    return dict(zip(store.ids[tokens].tolist(), store.values[tokens].tolist(), strict=True))


def logits_of(model, network, store, cells=None):
    with torch.inference_mode():
        batch = model.collate(store.take(np.arange(len(store)) if cells is None else cells))
        return network(**batch).numpy()


@quick
@given(tables, st.randoms(use_true_random=False))
def test_permuting_genes_and_cells_changes_nothing(model, network, counts, random):
    cells = cells_of(counts)
    store = model.tokenise([cells], seed=3)
    genes, rows = list(range(N_GENES)), list(range(len(counts)))
    random.shuffle(genes)
    random.shuffle(rows)
    shuffled = model.tokenise([cells[rows][:, genes].copy()], seed=3)
    for new, old in enumerate(rows):
        assert tokens_of(shuffled, new) == tokens_of(store, old)
    np.testing.assert_allclose(
        logits_of(model, network, shuffled), logits_of(model, network, store)[rows], atol=1e-5
    )


@quick
@given(tables, st.integers(1, 50))
def test_scaling_a_cell_does_not_move_its_bins(counts, factor):
    bounds = []
    for scaled in (counts, counts * factor):
        entries = known_entries(sp.csr_matrix(scaled), np.ones(N_GENES, dtype=bool))
        bounds.append(bin_bounds(entries, 51, transform=log_normalise(entries)))
    np.testing.assert_array_equal(bounds[0].below, bounds[1].below)
    np.testing.assert_array_equal(bounds[0].upto, bounds[1].upto)


@quick
@given(tables)
def test_bounds_are_those_of_a_loop_over_cells(counts):
    entries = known_entries(sp.csr_matrix(counts), np.ones(N_GENES, dtype=bool))
    bounds = bin_bounds(entries, 51)
    for cell in range(len(counts)):
        tokens = slice(entries.indptr[cell], entries.indptr[cell + 1])
        values = entries.values[tokens]
        if len(values):
            edges = np.quantile(values, np.linspace(0, 1, 50))
            np.testing.assert_array_equal(bounds.edges[cell], edges)
            np.testing.assert_array_equal(bounds.upto[tokens], np.digitize(values, edges))
            below = np.digitize(values, edges, right=True)
            np.testing.assert_array_equal(bounds.below[tokens], below)


@quick
@given(tables, st.floats(0, 1, exclude_max=True))
def test_bins_stay_inside_their_bounds(counts, number):
    entries = known_entries(sp.csr_matrix(counts), np.ones(N_GENES, dtype=bool))
    bounds = bin_bounds(entries, 51)
    bins = draw_bins(bounds, np.full(len(entries.values), number))
    assert ((bins >= bounds.low) & (bins <= bounds.upto) & (bins >= 1) & (bins <= 50)).all()


@quick
@given(tables)
def test_padding_changes_nothing(model, network, counts):
    store = model.tokenise([cells_of(counts)], seed=0)
    together = logits_of(model, network, store)
    for cell in range(len(counts)):
        alone = logits_of(model, network, store, np.array([cell]))
        np.testing.assert_allclose(alone[0], together[cell], atol=1e-5)


def test_chunks_change_nothing(model, counts):
    cells = cells_of(counts)
    whole = model.tokenise([cells], seed=0)
    parts = model.tokenise([cells[:1], cells[1:4], cells[4:]], seed=0)
    np.testing.assert_array_equal(whole.indptr, parts.indptr)
    np.testing.assert_array_equal(whole.ids, parts.ids)
    np.testing.assert_array_equal(whole.values, parts.values)


def test_seed_and_draw_give_other_bins(model, counts):
    cells = cells_of(counts)
    plain = model.tokenise([cells], seed=0).values
    for options in ({"seed": 1}, {"seed": 0, "draw": 1}):
        assert (model.tokenise([cells], **options).values != plain).mean() > 0.3
    np.testing.assert_array_equal(model.tokenise([cells], seed=0).values, plain)


def test_a_draw_covers_its_bounds_evenly(model):
    """One count in all genes: every bin of 1-50 is equally likely."""
    cells = cells_of(np.ones((400, N_GENES)))
    bins = model.tokenise([cells], seed=0).values.reshape(400, N_GENES + 1)[:, 1:]
    counted = np.bincount(bins.astype(int).ravel(), minlength=51)
    assert counted[0] == 0
    assert ((counted[1:] - 320) ** 2 / 320).sum() < 97


def test_long_cells_keep_the_same_sample_in_any_order(counts):
    values = {**ScGPT.presets["small"].values, "max_length": 11}
    model = ScGPT.scratch(ModelConfig("short", values, is_published_size=False), GENES, seed=0)
    cells = cells_of(counts)
    store = model.tokenise([cells], seed=0)
    assert np.diff(store.indptr).max() == 11
    assert (store.ids[store.indptr[:-1]] == model.vocabulary["<cls>"]).all()
    shuffled = model.tokenise([cells[::-1, ::-1].copy()], seed=0)
    for cell in range(len(counts)):
        assert tokens_of(store, cell) == tokens_of(shuffled, len(counts) - 1 - cell)
    other = model.tokenise([cells], seed=0, draw=1)
    assert any(tokens_of(store, i).keys() != tokens_of(other, i).keys() for i in range(6))


def test_subsample_keeps_the_lowest_scores():
    scores = np.array([0.9, 0.1, 0.5, 0.3, 0.2, 0.8])
    keep = subsample(np.array([4, 0, 2]), scores, 2)
    np.testing.assert_array_equal(keep, [False, True, False, True, True, True])


def test_only_tokens_of_one_gene(model):
    counts = np.zeros((1, N_GENES))
    counts[0, 3] = 7
    store = model.tokenise([cells_of(counts)], seed=0)
    assert list(store.ids) == [model.vocabulary["<cls>"], 3]
    assert store.values[0] == 0
    assert 1 <= store.values[1] <= 50


def test_cells_without_known_genes_are_counted_and_alike(model, network, counts):
    counts[[1, 4]] = 0
    cells = cells_of(counts)
    report = model.check_input(cells)
    assert any(note.startswith("2 cells have no count in a known gene") for note in report.notes)
    logits = logits_of(model, network, model.tokenise([cells], seed=0))
    np.testing.assert_allclose(logits[1], logits[4], atol=1e-5)


def test_genes_are_counted(model, counts):
    names = [*GENES[:30], *(f"NEW{i}" for i in range(9)), "<pad>"]
    report = model.check_input(cells_of(counts, names))
    assert (report.n_genes, report.n_matched, report.n_vocabulary) == (40, 30, 40)
    assert report.unmatched_examples == ("<pad>", "NEW0", "NEW1", "NEW2", "NEW3")


def test_lower_case_symbols_are_other_genes(model, counts):
    with pytest.raises(InputError, match="Only 0 of 40 genes match scGPT's vocabulary"):
        model.check_input(cells_of(counts, [gene.lower() for gene in GENES]))


def test_ensembl_ids_are_recognised(model, counts):
    names = [f"ENSG{i:011d}" for i in range(N_GENES)]
    with pytest.raises(InputError, match="put gene symbols into `var_names`"):
        model.check_input(cells_of(counts, names))


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


def test_seeded_weights_are_repeated_and_leave_the_generator(model):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = model.network(3), model.network(3)
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_state_describes_the_model(model, counts):
    state = json.loads(json.dumps(model.state()))
    again = ScGPT.from_state(state)
    assert again.sizes == model.sizes
    cells = cells_of(counts)
    np.testing.assert_array_equal(again.tokenise([cells]).ids, model.tokenise([cells]).ids)


def test_variable_genes_are_chosen_in_file_order():
    rng = np.random.default_rng(0)
    rates = np.tile(np.linspace(1, 10, N_GENES), (80, 1))
    rates[:40, 3::8] *= 2
    rates[40:, 3::8] = 0
    counts = rng.poisson(rates).astype(np.float32)
    counts[:, 1] = 0
    genes = select_hvg(cells_of(counts), 5)
    assert genes == GENES[3::8]
    assert GENES[1] not in select_hvg(cells_of(counts), N_GENES)


@pytest.mark.parametrize(
    "name", ["self_attn.Wqkv.weight", "self_attn._impl.Wqkv.weight", "self_attn.in_proj_weight"]
)
def test_every_naming_of_attention_is_known(name):
    assert rename(f"layers.0.{name}") == "layers.0.self_attn.in_proj_weight"


@pytest.fixture
def checkpoint(tmp_path):
    for name in ("args.json", "vocab.json", "best_model.pt"):
        (tmp_path / name).write_bytes((GOLDEN / "pretrained" / name).read_bytes())
    return tmp_path


def change_tensors(folder, change):
    tensors = torch.load(folder / "best_model.pt", weights_only=True)
    change(tensors)
    torch.save(tensors, folder / "best_model.pt")


def change_json(folder, name, change):
    values = json.loads((folder / name).read_text(encoding="utf-8"))
    change(values)
    (folder / name).write_text(json.dumps(values), encoding="utf-8")


def rename_all(tensors, old, new):
    for name in [name for name in tensors if old in name]:
        tensors[name.replace(old, new)] = tensors.pop(name)


@needs_fixtures
@pytest.mark.parametrize("new", ["._impl.Wqkv.", ".in_proj_"])
def test_checkpoints_of_other_builds_load_the_same(checkpoint, new):
    plain = ScGPT.from_checkpoint(checkpoint)[0].network(2).state_dict()
    change_tensors(checkpoint, lambda t: rename_all(t, ".Wqkv.", new))
    model, report = ScGPT.from_checkpoint(checkpoint)
    assert report.share_loaded == 1.0
    other = model.network(2).state_dict()
    for name in plain:
        if "cls_decoder" not in name:
            assert torch.equal(plain[name], other[name]), name


@needs_fixtures
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: rename_all(t, ".Wqkv.", ".mha.qkv."), "attention weights are in flash naming"),
        (
            lambda t: [t.pop(n) for n in list(t) if "Wqkv" in n],
            "attention weights are not in the file",
        ),
        (lambda t: t.update({"bn.weight": torch.ones(32)}), "batch norm"),
        (lambda t: t.pop("encoder.enc_norm.bias"), "1 are missing: `encoder.enc_norm.bias`"),
        (
            lambda t: t.update({"value_encoder.linear1.weight": torch.ones(32, 2)}),
            "another shape: `value_encoder.linear1.weight`",
        ),
    ],
)
def test_checkpoints_that_do_not_fill_the_backbone_are_refused(checkpoint, change, message):
    change_tensors(checkpoint, change)
    with pytest.raises(InputError, match=message):
        ScGPT.from_checkpoint(checkpoint)
    _, report = ScGPT.from_checkpoint(checkpoint, accept_partial=True)
    assert report.share_loaded < 1 or "bn.weight" in report.dropped


@needs_fixtures
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vocab.json", lambda v: (v.pop("<pad>"), v.pop("<cls>")), "lacks <pad>, <cls>"),
        ("vocab.json", lambda v: v.update({"<eoc>": 500}), "without gaps"),
        ("vocab.json", lambda v: v.update({"<eoc>": "7"}), "without gaps"),
        ("vocab.json", lambda v: v.update({"EXTRA": len(v)}), "the checkpoint embeds"),
        ("args.json", lambda v: v.pop("nheads"), "does not give nheads"),
        ("args.json", lambda v: v.update({"nlayers": 5}), "are missing"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(checkpoint, name, change, message):
    change_json(checkpoint, name, change)
    with pytest.raises(InputError, match=message):
        ScGPT.from_checkpoint(checkpoint)


@needs_fixtures
def test_missing_files_are_named(checkpoint):
    (checkpoint / "vocab.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"no `vocab\.json`"):
        ScGPT.from_checkpoint(checkpoint)


@needs_fixtures
def test_head_of_a_fine_tuned_file_is_not_taken_for_backbone(checkpoint):
    change_tensors(
        checkpoint, lambda t: t.update({"cls_decoder.out_layer.weight": torch.ones(2, 32)})
    )
    _, report = ScGPT.from_checkpoint(checkpoint)
    assert "cls_decoder.out_layer.weight" in report.dropped
    assert "cls_decoder.out_layer.weight" in report.fresh


def full_size(device):
    values = ScGPT.presets["whole_human"]
    model = ScGPT.scratch(values, [str(i) for i in range(60_694)], seed=0)
    with torch.device(device):
        return model, model.network(18)


@needs_fixtures
def test_full_size_network_has_the_published_shapes():
    published = published_table("scgpt")["keys"]
    _, network = full_size("meta")
    own = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    for name, shape in published.items():
        if not name.startswith(("flag_encoder.", "mvc_decoder.")):
            assert own.pop(rename(name)) == shape
    assert all(name.startswith("cls_decoder.") for name in own)
    head = 527_360 + 513 * 18
    assert sum(p.numel() for p in network.parameters()) == 50_804_225 + head


@pytest.mark.slow
@needs_fixtures
def test_full_size_checkpoint_loads(tmp_path):
    tensors = write_published("scgpt.whole_human", tmp_path)
    assert (
        sum(tensor.numel() for tensor in tensors.values()) == published_table("scgpt")["parameters"]
    )
    model, report = ScGPT.from_checkpoint(tmp_path)
    assert model.config.is_published_size
    assert (report.n_loaded, report.share_loaded) == (159, 1.0)
    assert len(report.renamed) == 24
    own = model.network(18).state_dict()
    name = "transformer_encoder.layers.11.self_attn.{}weight"
    assert torch.equal(own[name.format("in_proj_")], tensors[name.format("Wqkv.")])


def test_published_vocabulary_is_read_quickly():
    path = SHARED / "vocab" / "scgpt" / "default_census_vocab.json"
    if not path.exists():
        pytest.skip("the published vocabulary is not here")
    names = json.loads(path.read_text(encoding="utf-8"))
    model = ScGPT(ScGPT.presets["whole_human"], {**names, "<pad>": 60_694, "<cls>": 60_695})
    assert len(names) == 60_694
    assert model._gene_ids(["CD34", "cd34", "<pad>"])[1:].tolist() == [-1, -1]
    assert model._gene_ids(["CD34"])[0] >= 0


@needs_fixtures
def test_tokens_stay_in_the_batch_order(counts):
    model = ScGPT.scratch(ScGPT.presets["small"], GENES, seed=0)
    store = model.tokenise([cells_of(counts)], seed=0)
    batch = store.take(np.array([4, 0]))
    assert isinstance(batch, TokenBatch)
    genes = model.collate(batch)["genes"].numpy()
    for row, cell in zip(genes, (4, 0), strict=True):
        length = store.indptr[cell + 1] - store.indptr[cell]
        np.testing.assert_array_equal(row[:length], store.ids[store.indptr[cell] :][:length])
        assert (row[length:] == model.vocabulary["<pad>"]).all()
