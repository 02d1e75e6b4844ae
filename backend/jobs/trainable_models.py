"""Which models can be trained, asked of a process of its own: networks import torch, pages do not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.errors import FaultlineError, InputError, JobFailed, ModelUnavailable
from backend.processes import ChildEnded, Limits, ask_child

if TYPE_CHECKING:
    from backend.processes import Channel

__all__ = ["check_request", "list_trainable"]

_LIMITS: Final = Limits(seconds=180.0)


def _ask(function: str, *args: Any) -> Any:
    """Return the answer of a process that may import what the pages may not."""
    try:
        return ask_child(f"backend.jobs.trainable_models:{function}", *args, limits=_LIMITS)
    except ChildEnded as end:
        if end.exceeded:
            msg = f"The models could not be read within {_LIMITS.seconds:g} s: the machine is busy."
            raise JobFailed(msg, "Try again later.") from end
        msg = f"The models could not be read: their process {end}."
        raise JobFailed(msg, "The server's log has the details; tell the administrator.") from end


def list_trainable() -> list[dict[str, Any]]:
    """Return the models: key, display_name, presets, checkpoints, is_savable; baselines first."""
    found: list[dict[str, Any]] = _ask("models_in_child")
    return found


def check_request(values: dict[str, Any]) -> None:
    """Raise `InputError` if a run cannot be made of this, before it is queued."""
    answer = _ask("refusal_in_child", values)
    if answer is not None:
        raise InputError(answer["message"], answer["hint"])


def models_in_child(channel: Channel) -> list[dict[str, Any]]:
    """Return what `list_trainable` does."""
    from backend.models.catalogue import registered
    from backend.models.registry import list_models, model_class

    found = []
    for key in list_models():
        try:
            model = model_class(key)
        except (ImportError, ModelUnavailable) as error:
            print(f"{key} is left out: {error}", file=sys.stderr)
            continue
        presets = [preset.name for preset in model.presets.values()]
        found.append(
            {
                "key": key,
                "display_name": model.display_name,
                "presets": presets,
                "checkpoints": [entry.name for entry in registered(key)] if presets else [],
                "is_savable": model.is_savable,
            }
        )
    return found


def refusal_in_child(channel: Channel, values: Any) -> dict[str, str] | None:
    """Return message and hint of what is wrong with a request, or None."""
    from backend.jobs.requests import RunRequest

    try:
        RunRequest.of(values).plan(Path("dataset.h5ad"))
    except FaultlineError as error:
        return {"message": error.message, "hint": error.hint}
    return None
