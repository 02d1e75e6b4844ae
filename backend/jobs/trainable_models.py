"""Which models can be trained, asked of a process of its own: networks import torch, pages do not.

python -m backend.jobs.trainable_models                 # the models, as JSON
python -m backend.jobs.trainable_models '{"model": …}'  # check a request; refusals as JSON
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

from backend.config import environment
from backend.errors import FaultlineError, InputError, JobFailed, ModelUnavailable

__all__ = ["check_request", "list_trainable"]

_PATIENCE: Final = 180.0


def _ask(*words: str) -> Any:
    """Return the answer of a process that may import what the pages may not."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "backend.jobs.trainable_models", *words],
            env=environment(), capture_output=True, text=True, timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        msg = f"The models could not be read within {_PATIENCE:.0f} s: this machine is busy."
        raise JobFailed(msg, "Try again later.") from error
    if done.returncode:
        msg = f"The models could not be read (exit code {done.returncode})."
        raise JobFailed(
            msg, "Ask the administrator to run `python -m backend.jobs.trainable_models`."
        )
    return json.loads(done.stdout)


def list_trainable() -> list[dict[str, Any]]:
    """Return the models: key, display_name, presets, checkpoints, is_savable; baselines first."""
    found: list[dict[str, Any]] = _ask()
    return found


def check_request(values: dict[str, Any]) -> None:
    """Raise `InputError` if a run cannot be made of this, before it is queued."""
    answer = _ask(json.dumps(values))
    if answer is not None:
        raise InputError(answer["message"], answer["hint"])


def _models() -> list[dict[str, Any]]:
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


def _refusal(values: Any) -> dict[str, str] | None:
    from backend.jobs.requests import RunRequest
    from backend.training.runs import build_typer

    try:
        request = RunRequest.of(values)
        typer = build_typer(request.series("0" * 16))
        if request.fits != "folds" and not typer.is_savable:
            msg = f"{typer.display_name} cannot be saved, so a final fit of it would be lost."
            raise ModelUnavailable(msg, "Choose the folds only, or another model.")
    except FaultlineError as error:
        return {"message": error.message, "hint": error.hint}
    return None


if __name__ == "__main__":
    given = sys.argv[1:]
    print(json.dumps(_refusal(json.loads(given[0])) if given else _models()))
