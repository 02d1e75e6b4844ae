"""Deliberate single changes, each of which must turn a test red."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["MUTANTS", "Mutant"]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: in `file`, `old` (which occurs once) becomes `new`; one of `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _of(family: str, golden: str, *changes: tuple[str, str, str, str, str]) -> tuple[Mutant, ...]:
    """Return mutants from (name, file of the family, old, new, test).

    A test without a file is one of the family's golden tests; with `unit:` in front, one of its
    own tests.
    """

    def test_of(test: str) -> str:
        if test.startswith("unit:"):
            return f"tests/backend/models/test_{golden}.py::{test.removeprefix('unit:')}"
        return f"tests/golden/test_{golden}.py::{test}"

    return tuple(
        Mutant(f"{golden}: {name}", f"backend/models/{family}{file}", old, new, (test_of(test),))
        for name, file, old, new, test in changes
    )


_SCGPT: Final = _of(
    "scgpt/",
    "scgpt",
    (
        "attention in flash naming is not read",
        "checkpoint.py",
        'name.replace(".self_attn.Wqkv.", ".self_attn.in_proj_")',
        "name",
        "test_loading_accounts_for_every_tensor",
    ),
    (
        "attention under `_impl` is not read",
        "checkpoint.py",
        'name.replace(".self_attn._impl.", ".self_attn.")',
        "name",
        "unit:test_checkpoints_of_other_builds_load_the_same",
    ),
    (
        "padding is attended to",
        "network.py",
        "None if is_padding is None else ~is_padding[:, None, None, :]",
        "None",
        "test_embedding_and_logits",
    ),
    (
        "norm before the sum",
        "network.py",
        "self.norm1(x[:, :n_queries] + self.dropout(attended))",
        "x[:, :n_queries] + self.norm1(self.dropout(attended))",
        "test_embedding_and_logits",
    ),
    (
        "genes without their norm",
        "network.py",
        "self.enc_norm(self.embedding(genes))",
        "self.embedding(genes)",
        "test_embedding_and_logits",
    ),
    (
        "cell as the mean of its tokens",
        "network.py",
        "self.encode(genes, values, is_padding, n_queries=1)[:, 0]",
        "self.encode(genes, values, is_padding).mean(dim=1)",
        "test_embedding_and_logits",
    ),
    (
        "a value on an edge gets one bin",
        "tokens.py",
        "guess_upto, value, np.less_equal",
        "guess_upto, value, np.less",
        "test_bin_bounds_are_exact",
    ),
    (
        "quantiles without the lowest value",
        "tokens.py",
        "np.linspace(0, 1, n_edges)",
        "np.linspace(0, 1, n_edges + 1)[1:]",
        "test_bin_bounds_are_exact",
    ),
    (
        "another logarithm",
        "tokens.py",
        "np.log1p(self.normed(cells, counts))",
        "np.log1p(self.normed(cells, counts)) / np.log(np.float32(2))",
        "test_normalisation",
    ),
    (
        "`<cls>` with a value",
        "model.py",
        "np.insert(bins.astype(np.float32), first, 0)",
        "np.insert(bins.astype(np.float32), first, 1)",
        "test_token_values",
    ),
    (
        "one token more in a long cell",
        "tokens.py",
        "chosen[order] = rank < limit",
        "chosen[order] = rank <= limit",
        "test_our_sample_keeps_cls_and_known_tokens",
    ),
    (
        "clipping at 0.5",
        "model.py",
        "clip_norm=1.0",
        "clip_norm=0.5",
        "test_three_training_steps",
    ),
    (
        "variable genes among rarer ones",
        "model.py",
        "totals >= min_counts",
        "totals >= 0",
        "test_highly_variable_genes",
    ),
)

_GENEFORMER: Final = _of(
    "geneformer/",
    "geneformer",
    (
        "ties by falling token",
        "tokens.py",
        "np.lexsort((tokens[order[tied]], group))",
        "np.lexsort((-tokens[order[tied]], group))",
        "test_ranked_genes",
    ),
    (
        "multiplied by the median",
        "tokens.py",
        "(1 / medians)[entries.columns]",
        "medians[entries.columns]",
        "test_ranked_genes",
    ),
    (
        "per thousand",
        "tokens.py",
        "TARGET_SUM: Final = 10_000",
        "TARGET_SUM: Final = 1_000",
        "test_ranked_genes",
    ),
    (
        "the upper of two middle values as the median",
        "tokens.py",
        "(number - 1) // 2",
        "number // 2",
        "unit:test_medians_are_those_of_a_loop_over_genes",
    ),
    (
        "one gene more before the cut",
        "model.py",
        "self.max_length - 2 * self.has_cls",
        "self.max_length + 1 - 2 * self.has_cls",
        "test_truncated_input_ids",
    ),
    (
        "`<eos>` in front",
        "model.py",
        "[tokens[CLS], tokens[EOS]]",
        "[tokens[EOS], tokens[CLS]]",
        "test_input_ids[v2]",
    ),
    (
        "columns of one gene stay apart",
        "model.py",
        "if (number > 1).any():",
        "if (number > 99).any():",
        "test_columns_of_one_gene_are_summed",
    ),
    (
        "one place of padding is attended to",
        "model.py",
        "(np.arange(input_ids.shape[1]) < lengths[:, None])",
        "(np.arange(input_ids.shape[1]) <= lengths[:, None])",
        "test_collation",
    ),
    (
        "no weight decay",
        "model.py",
        "weight_decay=0.001",
        "weight_decay=0.0",
        "test_all_but_biases_and_norms_decay",
    ),
    (
        "decayed norms",
        "model.py",
        '("*.bias", "*LayerNorm.weight")',
        '("*.bias",)',
        "test_all_but_biases_and_norms_decay",
    ),
    (
        "clipping at 0.5",
        "model.py",
        "clip_norm=1.0",
        "clip_norm=0.5",
        "test_three_training_steps",
    ),
    (
        "the pooler counts as backbone",
        "model.py",
        'head = ("bert.pooler.*", "classifier.*")',
        'head = ("classifier.*",)',
        "test_loading_accounts_for_every_tensor",
    ),
)

_PERFORMER: Final = _of(
    "",
    "scbert",
    (
        "key maximum over each head",
        "performer.py",
        "logits.flatten(1).max(dim=1).values[:, None, None, None]",
        "logits.amax(dim=(-1, -2), keepdim=True)",
        "test_encodings_of_single_cells_are_the_default",
    ),
    (
        "key maximum of a cell out of the gradient",
        "performer.py",
        "logits.flatten(1).max(dim=1).values[:, None, None, None]",
        "logits.flatten(1).max(dim=1).values[:, None, None, None].detach()",
        "unit:test_maximum_of_one_cell_stays_in_the_gradient",
    ),
    (
        "key maximum of a batch out of the gradient",
        "performer.py",
        "highest = logits.flatten().max(dim=0).values",
        "highest = logits.flatten().max(dim=0).values.detach()",
        "test_three_training_steps",
    ),
    (
        "kernel epsilon of 1e-3",
        "performer.py",
        "KERNEL_EPSILON: Final = 1e-4",
        "KERNEL_EPSILON: Final = 1e-3",
        "test_encodings_of_single_cells_are_the_default",
    ),
    (
        "the whole squared length",
        "performer.py",
        "u.square().sum(dim=-1, keepdim=True) / 2",
        "u.square().sum(dim=-1, keepdim=True)",
        "test_kernel_features_of_one_cell",
    ),
    (
        "an approximate GELU",
        "performer.py",
        'F.gelu(self.fn["w1"](x))',
        'F.gelu(self.fn["w1"](x), approximate="tanh")',
        "test_encodings_of_single_cells_are_the_default",
    ),
    (
        "absent tokens weigh",
        "performer.py",
        "v = v.masked_fill(padding[:, None, :, None], 0.0)",
        "v = v * 1.0",
        "unit:test_absent_tokens_weigh_nothing_in_attention",
    ),
)

_SCBERT: Final = _of(
    "scbert/",
    "scbert",
    (
        "bins one higher",
        "tokens.py",
        "np.minimum(exponent - 1, n_bins)",
        "np.minimum(exponent, n_bins)",
        "test_tokens_match_exactly",
    ),
    (
        "per hundred thousand",
        "tokens.py",
        "scaled.data * 1e4 / totals",
        "scaled.data * 1e5 / totals",
        "test_log_values_match",
    ),
    (
        "cells at the filter's edge are dropped",
        "tokens.py",
        "np.diff(aligned.indptr) >= min_genes",
        "np.diff(aligned.indptr) > min_genes",
        "test_gene_filter_at_the_published_threshold",
    ),
    (
        "the last block trains",
        "model.py",
        "self.sizes.depth - 2",
        "self.sizes.depth - 1",
        "test_the_authors_layers_train",
    ),
    (
        "tensors under `module.` are not read",
        "checkpoint.py",
        'name.removeprefix("module.")',
        "name",
        "unit:test_checkpoint_of_several_devices_and_with_a_classifier_is_read",
    ),
    (
        "no gene vectors",
        "network.py",
        "self.token_emb(tokens) + genes",
        "self.token_emb(tokens)",
        "test_embedding_of_tokens_and_genes",
    ),
    (
        "cycles of one length",
        "model.py",
        '"cycle_mult": 2',
        '"cycle_mult": 1',
        "test_learning_rates_of_the_authors",
    ),
)

_SCFOUNDATION: Final = _of(
    "scfoundation/",
    "scfoundation",
    (
        "T and S exchanged",
        "tokens.py",
        '[cells.extra["target_depth"][i], cells.extra["source_depth"][i]]',
        '[cells.extra["source_depth"][i], cells.extra["target_depth"][i]]',
        "test_cell_embeddings",
    ),
    (
        "depth as a natural logarithm",
        "tokens.py",
        "np.log10(sums)",
        "np.log(sums)",
        "test_model_input_matches",
    ),
    (
        "a factor of depth is added",
        "tokens.py",
        "source_depth + np.log10(value)",
        "source_depth + value",
        "test_model_input_matches",
    ),
    (
        "per hundred thousand",
        "tokens.py",
        "np.repeat(sums, np.diff(values.indptr)) * 1e4",
        "np.repeat(sums, np.diff(values.indptr)) * 1e5",
        "test_log_values_match",
    ),
    (
        "padding is pooled",
        "network.py",
        "encoded.masked_fill(padding.unsqueeze(-1), -torch.inf)",
        "encoded * 1.0",
        "test_classifier_one_cell_at_a_time",
    ),
    (
        "padding is attended to",
        "network.py",
        "layer(x, src_key_padding_mask=padding)",
        "layer(x)",
        "test_encoder",
    ),
    (
        "bins without the residual",
        "network.py",
        "self.sizes.bin_alpha * hidden + self.mlp2(hidden)",
        "self.mlp2(hidden)",
        "test_value_embedding",
    ),
    (
        "epsilon of the batch norm at 1e-5",
        "network.py",
        "affine=False, eps=1e-6",
        "affine=False, eps=1e-5",
        "unit:test_a_feature_that_never_varied_is_divided_by_the_references_epsilon",
    ),
    (
        "decoder without gene vectors",
        "network.py",
        "x + self.pos_emb.weight[: x.shape[1]]",
        "x",
        "test_decoder",
    ),
    (
        "another layer trains",
        "model.py",
        "self.sizes.depth - 2",
        "self.sizes.depth - 1",
        "test_loss_and_gradients",
    ),
)

MUTANTS: Final = (*_SCGPT, *_GENEFORMER, *_PERFORMER, *_SCBERT, *_SCFOUNDATION)
