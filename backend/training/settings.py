"""Settings of a series: what may be given to a model, checked before anything is computed."""

from __future__ import annotations

import difflib
import inspect
import json
from dataclasses import dataclass, fields, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from backend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from backend.models.base import RecipeDefaults

__all__ = [
    "SELECTIONS",
    "Settings",
    "best_epoch",
    "check_settings",
    "find_preset",
    "median_best_epoch",
    "parse_settings",
    "preset_of",
]

SELECTIONS: Final = {"valid_loss": -1.0, "valid_accuracy": 1.0, "macro_f1": 1.0}
"""What may choose the best epoch, and whether less (-1) or more (1) is better."""

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "select_by": tuple(SELECTIONS),
    "class_weights": ("none", "balanced"),
    "precision": ("auto", "bf16", "fp16", "fp32"),
    "loss": ("cross_entropy", "focal"),
    "adversarial": ("none", "timepoint", "donor"),
}
_WHOLE: Final = ("epochs", "batch_size", "accumulate", "max_steps", "patience", "draws", "lora")
_NUMBERS: Final = ("learning_rate", "adversarial_weight")
_SWITCHES: Final = ("oversample", "compile")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a series may change of the authors' defaults; None keeps them.

    epochs, learning_rate, batch_size, accumulate
        Of the recipe. One optimiser step sees `batch_size` × `accumulate` cells.
    clip_norm
        Longest gradient; longer ones are shortened to it. 0 clips nothing.
    select_by
        What chooses the best epoch: valid_loss, valid_accuracy or macro_f1.
    patience
        Stop after so many epochs without a better one.
    max_steps
        Stop after so many optimiser steps.
    class_weights
        "balanced" weighs a type inversely to the number of its training cells.
    oversample
        Repeat training cells of rarer types until every type has as many as the largest.
    loss, gamma
        "focal" weighs a cell by (1 - probability of its type) ** gamma (default 2).
    adversarial, adversarial_weight
        "timepoint" or "donor": a second head guesses it from what the last layer reads, and its
        reversed gradient unteaches the network to tell them apart. Weight 1 by default.
    precision
        "auto" is bf16 on a GPU and fp32 on a CPU; fp16 needs a GPU.
    lora
        Train adapters of this rank beside the attention weights of a pretrained Geneformer.
    compile
        Compile the network with `torch.compile` for training.
    draws
        Average predictions over so many draws of a model's random tokens.
    """

    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    clip_norm: float | None = None
    select_by: str | None = None
    patience: int | None = None
    max_steps: int | None = None
    class_weights: str | None = None
    oversample: bool = False
    loss: str = "cross_entropy"
    gamma: float | None = None
    adversarial: str = "none"
    adversarial_weight: float | None = None
    precision: str = "auto"
    lora: int | None = None
    compile: bool = False
    draws: int = 1

    @classmethod
    def of(
        cls,
        values: Mapping[str, Any],
        *,
        has_random_tokens: bool,
        name: str,
        init: str = "scratch",
        takes_lora: bool = False,
        options: Iterable[str] = (),
    ) -> Settings:
        """Check settings, before anything is computed.

        Parameters
        ----------
        has_random_tokens, takes_lora, options, name
            What the model can do, which options of its own it has, and what it is called.
        init
            How the series starts.

        Raises
        ------
        InputError
            If one is unknown, out of range, or does not go with the model or with another one.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            msg = f"{name} has no setting {', '.join(unknown[:5])}."
            raise InputError(msg, _nearest(unknown[0], [*known, *options]))
        for field, value in values.items():
            if value is not None:
                _check_value(field, value)
        settings = cls(**{field: value for field, value in values.items() if value is not None})
        if settings.draws > 1 and not has_random_tokens:
            msg = f"{name} draws no random tokens, so {settings.draws} draws would be the same."
            raise InputError(msg, "Leave out draws.")
        if settings.lora is not None and not takes_lora:
            msg = f"LoRA goes with networks of the package transformers, and {name} is none."
            raise InputError(msg, "Leave out lora, or choose Geneformer.")
        settings._check_together(init)
        return settings

    def _check_together(self, init: str) -> None:
        """Refuse settings of which one would do nothing, or undo another."""
        refusals = (
            (
                self.gamma is not None and self.loss != "focal",
                f"gamma is {self.gamma}, but the loss is {self.loss}.",
                "Add loss=focal, or leave out gamma.",
            ),
            (
                self.adversarial_weight is not None and self.adversarial == "none",
                f"adversarial_weight is {self.adversarial_weight}, but there is no adversary.",
                "Add adversarial=timepoint or adversarial=donor, or leave out the weight.",
            ),
            (
                self.oversample and self.class_weights == "balanced",
                "Cells of rare types would count twice: by oversample and by class_weights.",
                "Keep one of them.",
            ),
            (
                self.adversarial != "none" and init == "frozen",
                f"The backbone is frozen, so an adversary for {self.adversarial} changes nothing.",
                "Use init pretrained or scratch, or leave out adversarial.",
            ),
            (
                self.lora is not None and init != "pretrained",
                f"lora adapts pretrained weights, but the init is {init}.",
                "Use init pretrained, or leave out lora.",
            ),
            (
                self.adversarial != "none" and self.compile,
                "A compiled network does not show an adversary what its last layer reads.",
                "Keep one of adversarial and compile.",
            ),
        )
        for is_refused, msg, hint in refusals:
            if is_refused:
                raise InputError(msg, hint)

    def apply(self, recipe: RecipeDefaults) -> RecipeDefaults:
        """Return the recipe with these settings in the place of its own."""
        names = (
            "epochs",
            "learning_rate",
            "batch_size",
            "accumulate",
            "select_by",
            "class_weights",
        )
        changes = {name: getattr(self, name) for name in names}
        changes = {name: value for name, value in changes.items() if value is not None}
        if self.clip_norm is not None:
            changes["clip_norm"] = self.clip_norm or None
        if self.patience is not None:
            changes["schedule_values"] = {**recipe.schedule_values, "patience": self.patience}
        return replace(recipe, **changes)


def _check_value(field: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    wanted = ""
    if field in _CHOICES:
        if value not in _CHOICES[field]:
            wanted = f"Choose one of: {', '.join(_CHOICES[field])}."
    elif field in _SWITCHES:
        if not isinstance(value, bool):
            wanted = "Give true or false."
    elif field in _WHOLE:
        if not (is_number and isinstance(value, int) and value > 0):
            wanted = "Give a whole number above 0."
    elif field in _NUMBERS:
        if not (is_number and 0 < value < float("inf")):
            wanted = "Give a number above 0."
    elif not (is_number and 0 <= value < float("inf")):
        wanted = "Give a number from 0."
    if wanted:
        msg = f"The setting {field} is {value!r}."
        raise InputError(msg, wanted)


def _nearest(name: str, known: Sequence[str]) -> str:
    """Return a hint that names the nearest of the known settings, then all."""
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    return f"{guess}It has: {', '.join(known)}."


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Return `NAME=VALUE` words as settings; a value that is not JSON is text.

    Raises
    ------
    InputError
        If a word has no name, or a name is given twice.
    """
    settings: dict[str, Any] = {}
    for word in words:
        name, separator, text = word.partition("=")
        if not separator or not name or name in settings:
            msg = f'The setting "{word}" is not NAME=VALUE, or its name was given before.'
            raise InputError(msg, "Write each setting once, for example --set n_genes=2000.")
        try:
            settings[name] = json.loads(text)
        except json.JSONDecodeError:
            settings[name] = text
    return settings


def check_settings(model: Any, settings: dict[str, Any]) -> None:
    """Raise `InputError` for settings that the constructor of a baseline does not take."""
    known = [
        name
        for name, parameter in inspect.signature(model).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        msg = f"{model.display_name} has no setting {', '.join(unknown[:5])}."
        raise InputError(msg, _nearest(unknown[0], known) if known else "It has none.")


def find_preset(model: Any, preset: str | None) -> str:
    """Return the full key of a foundation model's preset, such as `scgpt.small` for `small`.

    Raises
    ------
    InputError
        If none was given, or the model does not have it.
    """
    names = [config.name for config in model.presets.values()]
    for name in names:
        if preset in (name, name.rpartition(".")[2]):
            return name
    found = "no preset was given" if preset is None else f'there is no preset "{preset}"'
    msg = f"{model.display_name} needs a preset, and {found}."
    raise InputError(msg, f"Choose one of: {', '.join(names)}.")


def preset_of(model: Any, preset: str | None) -> str | None:
    """Return the full key of a foundation model's preset, None for a baseline, or refuse."""
    if model.kind == "foundation":
        return find_preset(model, preset)
    if preset is not None:
        msg = f"{model.display_name} is a baseline: it has no preset, init or checkpoint."
        raise InputError(msg, "Leave them out; in a plan, give baselines a [[run]] of their own.")
    return None


def best_epoch(history: pd.DataFrame, select_by: str) -> int:
    """Return the epoch whose weights a fit kept: the first best one, or the last unvalidated."""
    scores = history.get(select_by)
    if scores is None or scores.isna().all():
        return int(history["epoch"].iloc[-1])
    return int(history["epoch"].loc[(scores * SELECTIONS[select_by]).idxmax()])


def median_best_epoch(histories: Sequence[pd.DataFrame], select_by: str) -> int:
    """Return the median of the folds' best epochs; a half is rounded up."""
    return int(median(best_epoch(history, select_by) for history in histories) + 0.5)
