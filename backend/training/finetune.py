"""Fine-tune a foundation model into a classifier of cells: the one recipe."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from backend.errors import InputError
from backend.models.base import CellTyper, LoadReport, Predictions
from backend.models.baselines.expression import cell_ids_of, check_counts, check_fitted, labels_of
from backend.models.catalogue import Registered, find_checkpoint
from backend.models.checkpoints import fit_tensors, read_json, read_tensors, with_genes
from backend.models.inhouse import open_checkpoint
from backend.models.registry import model_class
from backend.training.convergence import convergence_of
from backend.training.device import find_device
from backend.training.fit_workspace import FitWorkspace
from backend.training.loop import Loop
from backend.training.lora import adapted, merged
from backend.training.overlap import PUBLIC_NOTE
from backend.training.scoring import WithHidden, predict_logits
from backend.training.settings import Settings, median_best_epoch
from backend.training.token_cache import chunks_of
from backend.types import INITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anndata import AnnData
    from torch import nn

    from backend.models.base import FoundationModel, GeneReport, RecipeDefaults
    from backend.training.token_cache import AnyTokens

__all__ = ["Classifier", "Settings"]

FORMAT: Final = 1


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block, and leave its generators as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class Classifier(CellTyper):
    """A foundation model under a classifier head, as a `CellTyper`.

    Parameters
    ----------
    model_key
        Key of the foundation model.
    preset
        Full name of a preset of that model, such as "scgpt.small".
    init
        "scratch" (random weights), "pretrained" (a checkpoint's), or "frozen" (a checkpoint's,
        of which only the head is trained).
    checkpoint
        Name of a registered checkpoint, for "pretrained" and "frozen".
    settings
        See `Settings`; besides, the `options` of the model, where it has any.
    device
        "auto" takes a GPU where there is one.

    Attributes
    ----------
    history_
        One row an epoch: step, epoch, train_loss, valid_loss, valid_accuracy, macro_f1, lr,
        cells_per_second, memory_mib (peak of a GPU's allocations, or largest resident memory seen) and
        padding_share (places of a batch, padded to its longest cell, that hold no token; 0-1).
    convergence_
        Whether it stopped improving, see `backend.training.convergence`. None without validation.
    load_report_, notes_, classes_, device_
        What was loaded, what a reader must know, the types, and where it was fitted.
    spread_
        After `predict` with several draws: standard deviation over the draws of the probability
        of each cell's predicted type, (n_cells,) float32. None otherwise.
    """

    kind = "foundation"
    recipe_version = 2
    """2: one pass of the optimiser a step, and Geneformer's last layer for its first token."""
    spread_: np.ndarray | None = None

    def __init__(
        self,
        model_key: str,
        preset: str,
        init: str = "scratch",
        checkpoint: str | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        device: str = "auto",
    ) -> None:
        model = model_class(model_key)
        self.model_key, self.preset, self.init, self.checkpoint = (
            model_key,
            preset,
            init,
            checkpoint,
        )
        self.settings = dict(settings or {})
        self.device = device
        if init not in INITS:
            msg = f'There is no init "{init}".'
            raise InputError(msg, f"Choose one of: {', '.join(INITS)}.")
        if (checkpoint is None) != (init == "scratch"):
            msg = f"The init is {init}, and the checkpoint {checkpoint or 'missing'}."
            hint = (
                "Give a checkpoint with pretrained and frozen, none with scratch. `checkpoints "
                "add` registers the authors' files, `pretrain` makes one."
            )
            raise InputError(msg, hint)
        configs = {config.name: config for config in model.presets.values()}
        if preset not in configs:
            msg = f'{model.display_name} has no preset "{preset}".'
            raise InputError(msg, f"Choose one of: {', '.join(configs)}.")
        self._config = configs[preset]
        self._options, training = model.split_settings(self.settings)
        self._settings = Settings.of(
            training,
            has_random_tokens=model.has_random_tokens,
            name=f"{model.display_name} ({preset})",
            init=init,
            takes_lora=bool(model.lora_targets),
            options=model.options,
        )
        self._workspace = FitWorkspace()
        self._of_fold: dict[str, Any] = {}
        self._histories: Sequence[pd.DataFrame] | None = None
        self.key = model_key
        self.display_name = model.display_name
        self.card = model.card
        self._model: FoundationModel | None = None
        self._network: nn.Module | None = None
        self._seed = 0

    @property
    def checkpoint_sha256(self) -> str | None:  # type: ignore[override]
        """Hash of the checkpoint's files, or None for random weights."""
        if self.checkpoint is None:
            return None
        return self._entry().sha256

    def _entry(self) -> Registered:
        assert self.checkpoint is not None
        return find_checkpoint(self.model_key, self.checkpoint, **self._of_fold)

    def at_fold(self, split_sha256: str, fold: int | str) -> None:
        """Say which fold will be fitted: a checkpoint name may stand for one for each fold."""
        self._of_fold = {"split_sha256": split_sha256, "fold": fold}

    def stop_like(self, histories: Sequence[pd.DataFrame]) -> None:
        """Fit for the median best epoch of the folds with these histories, as there is no valid.

        Learning rates stay those of the whole recipe. Without a history the recipe's last epoch
        counts; notes say which.
        """
        self._histories = histories

    def check_input(self, adata: AnnData) -> None:
        """Raise `InputError` when `adata` cannot be used: counts always, genes once fitted."""
        check_counts(adata)
        if self._model is not None:
            self._model.check_input(adata)

    def _build(self, train: AnnData, seed: int) -> tuple[FoundationModel, LoadReport]:
        model = model_class(self.model_key)
        if self.checkpoint is None:
            built = model.scratch_on(self._config, train, seed=seed)
            return built.with_options(self._options), LoadReport(0, 0.0)
        built, report = open_checkpoint(self.model_key, Path(self._entry().folder))
        if built.config.name != self.preset:
            msg = (
                f'The checkpoint "{self.checkpoint}" is {built.config.name}, but the series says '
                f"{self.preset}."
            )
            raise InputError(msg, "Choose the preset of the checkpoint.")
        return built.with_options(self._options), report

    def work_in(self, workspace: FitWorkspace) -> None:
        """Keep tokens and snapshots there, and tell it about progress; results stay."""
        self._workspace = workspace

    def _tokens_of(self, model: FoundationModel, cells: AnnData, draw: int = 0) -> AnyTokens:
        if self._workspace.tokens is not None:
            return self._workspace.tokens.tokens(model, cells.obs_names, seed=self._seed, draw=draw)
        options = {"draw": draw} if model.has_random_tokens else {}
        return model.tokenise(chunks_of(cells), seed=self._seed, **options)

    def fit(self, train: AnnData, *, label_key: str, valid: AnnData, seed: int) -> Self:
        """Train on `train`; the best epoch by the authors' rule is chosen on `valid`.

        Raises
        ------
        LabelError
            If a training cell has no label.
        InputError
            If the cells cannot be read by the model.
        JobFailed
            If the loss is not finite, a cell does not fit into memory, or the disk is full.
        """
        check_counts(train)
        codes, classes = labels_of(train, label_key)
        groups = self._groups_of(train)
        self._seed = seed
        with _seeded(seed):
            model, report = self._build(train, seed)
            genes = model.check_input(train)
            known = {label: code for code, label in enumerate(classes)}
            is_scored = np.array(
                [str(label) in known for label in valid.obs[label_key]], dtype=bool
            )
            scored = valid[is_scored]
            self._train(
                model,
                self._tokens_of(model, train),
                codes.astype(np.int64),
                classes,
                valid=self._tokens_of(model, scored) if len(scored) else None,
                valid_codes=np.array(
                    [known[str(label)] for label in scored.obs[label_key]], np.int64
                ),
                report=report,
                genes=genes,
                groups=groups,
            )
        if 0 < len(scored) < valid.n_obs:
            n = valid.n_obs - len(scored)
            text = f"{n:,} validation cells have no type of the training cells: not used"
            self.notes_ = (*self.notes_, text)
        return self

    def fit_tokens(
        self,
        model: FoundationModel,
        tokens: AnyTokens,
        codes: np.ndarray,
        classes: Sequence[str],
        *,
        valid: AnyTokens | None = None,
        valid_codes: np.ndarray | None = None,
        seed: int,
        report: LoadReport | None = None,
        genes: GeneReport | None = None,
        groups: np.ndarray | None = None,
    ) -> Self:
        """Train on tokens that are made already, such as those of a file larger than memory.

        Parameters
        ----------
        model
            What made the tokens; of this classifier's preset.
        tokens, codes
            Of the training cells, and (n_cells,) number of each cell's type in `classes`.
        valid, valid_codes
            The same of the cells that choose the best epoch; None keeps the last one.
        groups
            (n_cells,) timepoint or donor of each training cell as a number from 0, -1 for none;
            for the setting `adversarial`.

        Raises
        ------
        InputError
            If tokens and codes are not of the same cells.
        JobFailed
            As `fit`.
        """
        if len(tokens) != len(codes) or not len(codes):
            msg = f"There are tokens of {len(tokens):,} cells, but types of {len(codes):,}."
            raise InputError(msg, "Give both for the same cells, at least one.")
        self._seed = seed
        with _seeded(seed):
            self._train(
                model,
                tokens,
                codes.astype(np.int64),
                tuple(classes),
                valid=valid,
                valid_codes=np.zeros(0, np.int64) if valid_codes is None else valid_codes,
                report=report or LoadReport(0, 0.0),
                genes=genes,
                groups=groups,
            )
        return self

    def _train(
        self,
        model: FoundationModel,
        tokens: AnyTokens,
        codes: np.ndarray,
        classes: tuple[str, ...],
        *,
        valid: AnyTokens | None,
        valid_codes: np.ndarray,
        report: LoadReport,
        genes: GeneReport | None,
        groups: np.ndarray | None,
    ) -> None:
        """Build the network, train it, and keep what was learned."""
        settings = self._settings
        network = model.network(len(classes))
        report = replace(report, fresh=report.fresh or tuple(network.state_dict()))
        self.load_report_ = report if genes is None else with_genes(report, genes)
        notes = self._notes(report, genes)
        recipe = settings.apply(model.recipe())
        patterns = model.head if self.init == "frozen" else recipe.trainable
        if settings.lora is not None:
            network = adapted(network, settings.lora, model.lora_targets)
            patterns = ("*.lora_*", *model.head)
            notes.append(f"LoRA: adapters of rank {settings.lora} were trained, and the head")
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(any(fnmatchcase(name, each) for each in patterns))
        loop = Loop(
            model,
            network,
            recipe,
            len(classes),
            self.device,
            settings=settings,
            workspace=self._workspace,
            stop_after=self._stop_after(recipe, notes),
        )
        loop.run(
            tokens,
            codes,
            valid,
            valid_codes,
            seed=self._seed,
            max_steps=settings.max_steps,
            groups=groups,
        )
        if valid is None and self._histories is None:
            notes.append("no validation cells: the last epoch was kept")
        if len(classes) == 1:
            notes.append(f"All training cells are {classes[0]}: nothing else is predicted.")
        if settings.lora is not None:
            network = merged(network)
        self.history_ = pd.DataFrame(loop.history)
        self.convergence_ = convergence_of(self.history_, recipe)
        self.device_ = loop.device_name
        self.notes_ = (*notes, *loop.notes)
        self._model, self._network = model, network.cpu().eval()
        self.classes_ = classes

    def _stop_after(self, recipe: RecipeDefaults, notes: list[str]) -> int | None:
        """Return the last epoch of a final fit, and note where it comes from."""
        if self._histories is None:
            return None
        if not self._histories:
            notes.append(
                f"final fit of {recipe.epochs} epochs, the recipe's: no fold of the series is finished"
            )
            return None
        epochs = median_best_epoch(self._histories, recipe.select_by)
        n = len(self._histories)
        folds = "fold" if n == 1 else "folds"
        length = f"{epochs} epoch" + ("" if epochs == 1 else "s")
        notes.append(f"final fit of {length}, the median of the best ones of {n} {folds}")
        return epochs

    def _groups_of(self, train: AnnData) -> np.ndarray | None:
        """Return the timepoint or donor of each cell as a number, for an adversary."""
        name = self._settings.adversarial
        if name == "none":
            return None
        if name not in train.obs:
            msg = f'`obs` has no column "{name}", which adversarial={name} reads.'
            raise InputError(msg, "Leave out adversarial, or name the column when importing.")
        return pd.factorize(train.obs[name], sort=True)[0].astype(np.int64)

    def _notes(self, report: LoadReport, genes: GeneReport | None) -> list[str]:
        notes = []
        if genes is not None:
            notes = [f"{genes.n_matched:,} of {genes.n_genes:,} genes are read", *genes.notes]
        if self.checkpoint is not None:
            notes += [
                f"{report.share_loaded:.1%} of the backbone's parameters come from the checkpoint",
                *(() if self._entry().is_inhouse else (PUBLIC_NOTE,)),
                *report.notes,
            ]
        return notes

    def predict(self, adata: AnnData, *, batch_size: int = 64) -> Predictions:
        """Predict every cell of `adata`, in its order.

        The embedding is what the last layer of the network reads (in the first draw).
        """
        check_fitted(bool(self.classes_), self.display_name)
        assert self._model is not None
        assert self._network is not None
        check_counts(adata)
        if not adata.n_obs:
            empty = np.empty((0, len(self.classes_)), dtype=np.float32)
            return Predictions(cell_ids_of(adata), empty, self.classes_)
        self._model.check_input(adata)
        device = find_device(self.device)
        self._network.to(device)
        draws, hidden = [], None
        for draw in range(self._settings.draws):
            tokens = self._tokens_of(self._model, adata, draw)
            network = WithHidden(self._network, len(self.classes_))
            outputs = predict_logits(
                self._model,
                network,
                tokens,
                batch_size=batch_size,
                precision=self._settings.precision,
            )
            logits, read = outputs.tensor_split([len(self.classes_)], dim=1)
            draws.append(logits.softmax(dim=1).numpy())
            hidden = read.numpy().copy() if hidden is None else hidden
        self._network.cpu()
        proba = np.mean(draws, axis=0, dtype=np.float64)
        proba = (proba / proba.sum(axis=1, keepdims=True)).astype(np.float32)
        self.spread_ = None
        if len(draws) > 1:
            top = proba.argmax(axis=1)
            at_top = np.stack([each[np.arange(len(top)), top] for each in draws])
            self.spread_ = at_top.std(axis=0, ddof=1).astype(np.float32)
        return Predictions(cell_ids_of(adata), proba, self.classes_, hidden)

    def save(self, folder: Path) -> None:
        """Write `model.json`, `weights.safetensors`, `classes.json` and `genes.json`."""
        check_fitted(bool(self.classes_), self.display_name)
        assert self._model is not None
        assert self._network is not None
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "format_version": FORMAT,
            "model": self.model_key,
            "preset": self.preset,
            "init": self.init,
            "checkpoint": self.checkpoint,
            "settings": self.settings,
            "seed": self._seed,
            "notes": list(self.notes_),
            "load_report": asdict(self.load_report_) if self.load_report_ else None,
        }
        state = self._network.state_dict()
        save_file(
            {name: tensor.contiguous() for name, tensor in state.items()},
            folder / "weights.safetensors",
        )
        for name, value in (
            ("model.json", about),
            ("classes.json", {"classes": list(self.classes_)}),
            ("genes.json", self._model.state()),
        ):
            (folder / name).write_text(json.dumps(value) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> Self:
        """Read a model that `save` wrote.

        Raises
        ------
        InputError
            If a file is missing, damaged or of another version.
        """
        about = read_json(folder / "model.json")
        if about.get("format_version") != FORMAT or "preset" not in about:
            msg = f"`model.json` has the format {about.get('format_version')}; {FORMAT} is read."
            raise InputError(msg, "Train the model again with this version.")
        names = ("model", "preset", "init", "checkpoint", "settings")
        typer = cls(*(about[name] for name in names), device=device)
        model = model_class(typer.model_key).from_state(read_json(folder / "genes.json"))
        classes = tuple(read_json(folder / "classes.json")["classes"])
        network = model.network(len(classes))
        weights = read_tensors(folder / "weights.safetensors")
        fit_tensors(network, weights, display_name=typer.display_name)
        typer._model, typer._network, typer.classes_ = model, network.eval(), classes
        typer._seed, typer.notes_ = about["seed"], tuple(about["notes"])
        return typer
