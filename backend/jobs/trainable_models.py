"""Which models can be trained, asked of a process of its own: networks import torch, pages do not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from backend.data.inspect_upload import limits_of_look
from backend.errors import FaultlineError, InputError, JobFailed, ModelUnavailable
from backend.jobs.requests import RunRequest, SweepRequest
from backend.processes import ChildEnded, Limits, ask_child

if TYPE_CHECKING:
    from pathlib import Path

    from backend.processes import Channel

__all__ = ["check_request", "list_trainable"]

REQUESTS: Final[dict[str, type[RunRequest | SweepRequest]]] = {
    "run": RunRequest,
    "sweep": SweepRequest,
}
"""Kind of job to what it may be asked."""
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


def check_request(kind: str, values: dict[str, Any], home: Path, owner: str) -> dict[str, Any]:
    """Say what a job that trains cannot have on its file, before it is queued.

    Parameters
    ----------
    kind
        "run" or "sweep".

    Returns
    -------
    `gaps` and `folds` as `backend.studies.on_file.look_in_child` gives them.

    Raises
    ------
    InputError
        If it cannot be done at all; the hint says what would work.
    JobFailed
        If models or file could not be looked at.
    """
    request = REQUESTS[kind].of(values)
    path = request.path(home, owner)
    answer = _ask("splits_in_child", kind, values, path)
    if "message" not in answer:
        answer = _look(path, request.roles, answer["splits"])
    if "message" in answer:
        raise InputError(answer["message"], answer["hint"])
    return answer


def _look(path: Path, roles: dict[str, Any], splits: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what another process finds in the columns of a file, which may be hostile."""
    try:
        found: dict[str, Any] = ask_child(
            "backend.studies.on_file:look_in_child", path, roles, splits,
            limits=limits_of_look(path.stat().st_size), is_quiet=True,
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        )  # fmt: skip
    except ChildEnded as end:
        msg = f"The file could not be looked at: the process that read it {end}."
        raise JobFailed(msg, "Try again later, or look at it with `data check`.") from end
    return found


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


def splits_in_child(channel: Channel, kind: str, values: Any, path: Path) -> dict[str, Any]:
    """Return the `splits` that a request needs, or `message` and `hint` of what is wrong with it."""
    from backend.studies.on_file import splits_of

    try:
        request = REQUESTS[kind].of(values)
        plan = request.plan(path) if isinstance(request, RunRequest) else request.read(path)
        return {"splits": splits_of(plan)}
    except FaultlineError as error:
        return {"message": error.message, "hint": error.hint}
