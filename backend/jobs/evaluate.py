"""The job of the Evaluate page: predict and score an upload, or import a table of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from backend.config import keep_days, precomputed_dir
from backend.data.inspect_upload import roles_from
from backend.data.problems import Refusal
from backend.data.uploads import (
    delete_upload,
    find_own_file,
    find_server_file,
    find_upload,
    shown_name,
    user_folder,
)
from backend.errors import InputError
from backend.jobs.expiry import expires_at

if TYPE_CHECKING:
    from pathlib import Path

    from backend.jobs.handlers import JobContext

__all__ = ["ACTIONS", "run"]

LOCAL: Final = "local"
"""Owner of what is done at the machine itself, without sign-in."""
ACTIONS: Final = ("evaluate", "import")


def run(request: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Do one request.

    Parameters
    ----------
    request
        `action`: "evaluate" or "import". Both take `upload` (an id), or `server_file` (a name of
        `server_files`) or `own_file` (a path, of the local owner only), and `name`. "evaluate" takes `runs` (final runs), `roles`, `labels` (label
        → type or None), `donor_names` and `scored`; "import" takes `protocol`, `label_level`,
        `predicted_as` (predicted name → label) and `add_to` (a dataset that holds the cells).

    Returns
    -------
    `dataset_id` and the counts of `Evaluated` or `Imported`.

    Raises
    ------
    InputError
        If the request is wrong. A file that cannot be used is removed with its upload.
    """
    action = request.get("action")
    if action not in ACTIONS:
        msg = f'There is no action "{str(action)[:40]}".'
        raise InputError(msg, f"Choose one of: {', '.join(ACTIONS)}.")
    path, name, file_name = _file(request, context)
    facts = {
        "file_name": file_name,
        "uploaded": True,
        "upload_id": request.get("upload"),
        "expires_at": expires_at(keep_days()).isoformat(timespec="seconds"),
    }
    context.log(f"{action} {name}")
    try:
        return (_evaluate if action == "evaluate" else _import)(request, context, path, name, facts)
    except Refusal:
        _forget(request, context)
        raise
    except InputError:
        if action == "import":
            _forget(request, context)
        raise


def _file(request: dict[str, Any], context: JobContext) -> tuple[Path, str, str]:
    """Return the path, the name that pages call the dataset, and the file's own name."""
    if request.get("own_file"):
        if context.owner != LOCAL:
            msg = "A path is read only for the person who sits at this machine."
            raise InputError(msg, "Upload the file, or choose one of the server's data folders.")
        path = find_own_file(str(request["own_file"]))
        return path, shown_name(str(request.get("name") or path.name)), shown_name(path.name)
    if request.get("server_file"):
        name = str(request["server_file"])
        chosen = shown_name(str(request.get("name") or name))
        return find_server_file(name), chosen, shown_name(name)
    upload = find_upload(context.home, context.owner, str(request.get("upload")))
    return upload.path, shown_name(str(request.get("name") or upload.name)), upload.name


def _forget(request: dict[str, Any], context: JobContext) -> None:
    if request.get("upload"):
        delete_upload(context.home, context.owner, str(request["upload"]))
        context.log("the upload was removed, because it cannot be used")


def _evaluate(
    request: dict[str, Any], context: JobContext, path: Path, name: str, facts: dict[str, Any]
) -> dict[str, Any]:
    from backend.prediction.evaluate import evaluate
    from backend.prediction.saved_models import find_saved_model

    own = user_folder(context.home, context.owner)
    roots = [precomputed_dir(), context.home, own]
    models = [find_saved_model(str(run_id), roots) for run_id in request.get("runs") or []]
    done = evaluate(
        path,
        models,
        own,
        roles=roles_from(request.get("roles")),
        given=request.get("labels") or {},
        is_scored=bool(request.get("scored", True)),
        donor_names=str(request.get("donor_names") or "ask"),
        name=name,
        facts=facts,
        progress=context.progress,
    )
    for note in done.notes:
        context.log(note)
    return done.to_json()


def _import(
    request: dict[str, Any], context: JobContext, path: Path, name: str, facts: dict[str, Any]
) -> dict[str, Any]:
    from backend.store.imports import import_predictions
    from backend.types import EXTERNAL

    done = import_predictions(
        path,
        user_folder(context.home, context.owner),
        name=name,
        protocol=str(request.get("protocol") or EXTERNAL),
        label_level=request.get("label_level") or None,
        predicted_as={str(k): str(v) for k, v in (request.get("predicted_as") or {}).items()},
        add_to=str(request["add_to"]) if request.get("add_to") else None,
        roots=[precomputed_dir(), context.home, user_folder(context.home, context.owner)],
        facts=facts,
        progress=context.progress,
    )
    for note in done.notes:
        context.log(note)
    return done.to_json()
