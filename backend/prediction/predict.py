"""Stream a dataset through stored models: memory is that of one chunk and of the answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from backend.data.fingerprint import cell_fingerprints
from backend.errors import InputError
from backend.prediction.gene_cost import ReferenceCells

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from anndata import AnnData

    from backend.models.base import CellTyper
    from backend.prediction.saved_models import SavedModel

__all__ = ["CHUNK", "Answers", "Predictor"]

CHUNK: Final = 4096
_BATCH: Final = 64
_IMPORTANT: Final = 100
"""Genes of the largest weights that are looked for in a file."""
_MISSED: Final = 0.05
"""From this share of a model's weight on it is said that genes are missing."""


@dataclass(slots=True)
class Answers:
    """What one model said of the cells so far, in their order.

    proba : per chunk, (n_cells, n_classes) float32
    distances, percentiles : per chunk, (n_cells,) float32; NaN where the model keeps no reference
    was_trained_on : per chunk, (n_cells,) bool, by the fingerprint of the cell
    """

    proba: list[np.ndarray] = field(default_factory=list)
    distances: list[np.ndarray] = field(default_factory=list)
    percentiles: list[np.ndarray] = field(default_factory=list)
    was_trained_on: list[np.ndarray] = field(default_factory=list)

    def joined(self, name: str) -> np.ndarray:
        """Return one of the parts for all cells; free its pieces."""
        pieces: list[np.ndarray] = getattr(self, name)
        whole = np.concatenate(pieces)
        setattr(self, name, [whole])
        return whole


class Predictor:
    """Some stored models, loaded, with what they said.

    Parameters
    ----------
    models
        Stored models of one label level.
    device
        "auto" takes a GPU where there is one.
    reference
        The file that the models were fitted on, to say what missing genes cost.

    Raises
    ------
    InputError
        If there is no model, the reference is another file, or they answer at different label levels.
    ModelUnavailable
        If a model cannot be read.
    """

    def __init__(
        self, models: Sequence[SavedModel], *, device: str = "auto", reference: Path | None = None
    ) -> None:
        levels = sorted({model.run.label_level for model in models})
        if len(levels) != 1:
            msg = f"The models answer at the label levels {', '.join(levels) or 'of no model'}."
            raise InputError(msg, "Choose models of one label level.")
        self.label_level = levels[0]
        self.models = tuple(models)
        self.answers = [Answers() for _ in models]
        self._typers = [model.load(device=device) for model in models]
        self.gene_notes: tuple[str, ...] = ()
        self._reference_file = reference
        self._references = [model.reference() for model in models]
        self._train_cells = [model.train_cells() for model in models]

    def add(self, cells: AnnData) -> None:
        """Ask every model about some cells.

        Raises
        ------
        InputError
            If a model cannot read them, for example because it knows too few of their genes.
        """
        prints = cell_fingerprints(cells)
        if not self.answers[0].proba:
            self.gene_notes = (
                *_gene_notes(
                    self.models,
                    self._typers,
                    cells.var_names,
                    is_costed=self._reference_file is not None,
                ),
                *self._cost_notes(cells.var_names),
            )
        for model, typer, reference, known, answers in zip(
            self.models, self._typers, self._references, self._train_cells, self.answers,
            strict=True,
        ):  # fmt: skip
            try:
                predictions = typer.predict(cells, batch_size=_BATCH)
            except InputError as error:
                msg = f"{model.run.display_name} cannot read the file: {error.message}"
                raise InputError(msg, error.hint) from error
            nothing = np.full(cells.n_obs, np.nan, dtype=np.float32)
            distances = nothing if reference is None else reference.distances(cells, predictions)
            percentiles = nothing if reference is None else reference.percentiles(distances)
            # A cell without counts lies nowhere.
            answers.proba.append(predictions.proba)
            answers.distances.append(np.where(prints == 0, np.nan, distances))
            answers.percentiles.append(np.where(prints == 0, np.nan, percentiles))
            places = np.minimum(np.searchsorted(known, prints), len(known) - 1)
            # 0 is the fingerprint of a cell without counts: any two of them are "the same".
            answers.was_trained_on.append((known[places] == prints) & (prints != 0))

    def _cost_notes(self, genes: Iterable[str]) -> tuple[str, ...]:
        """Say of each model what it costs that the file lacks genes of its reference."""
        if self._reference_file is None:
            return ()
        cells = ReferenceCells(self._reference_file, label_level=self.label_level)
        own = set(genes)
        return tuple(
            f"{model.run.display_name}: {cells.cost(model, typer, own).sentence()}"
            for model, typer in zip(self.models, self._typers, strict=True)
        )


def _gene_notes(
    models: Sequence[SavedModel],
    typers: Sequence[CellTyper],
    genes: Iterable[str],
    *,
    is_costed: bool,
) -> tuple[str, ...]:
    """Say how much of a model's weight lies on genes that the file lacks.

    A share of all genes is no evidence: a file of a tenth of them may hold all that matter, or none.
    """
    own, notes = set(genes), []
    unknown = (
        ". What it costs on the donors that it was fitted on is not known without their counts "
        "(--reference FILE)"
    )
    unknown = "" if is_costed else unknown
    for model, typer in zip(models, typers, strict=True):
        known = typer.gene_weights()
        if known is None or not known[1].sum():
            continue
        names, weights = known
        is_missing = np.array([name not in own for name in names])
        share = float(weights[is_missing].sum() / weights.sum())
        if share < _MISSED:
            continue
        first = np.argsort(-weights, kind="stable")[:_IMPORTANT]
        n = int(is_missing[first].sum())
        examples = ", ".join(names[k] for k in first[is_missing[first]][:5])
        notes.append(
            f"{model.run.display_name}: the file lacks {n} of the {len(first)} genes that move its "
            f"answers most{f' ({examples})' if n else ''} and {share:.0%} of the weight of all genes; its "
            f"confidence does not show that{unknown}"
        )
    return tuple(notes)
