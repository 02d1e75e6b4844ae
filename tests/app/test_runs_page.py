"""The Runs page: what was run, the owner's jobs, and the form that starts one."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from app import cache
from app.components import jobs as jobs_component
from app.components import saved_selections
from app.components.export import FOOTER
from app.identity import Identity
from app.sections.runs import dataset as run_dataset
from app.sections.runs import form as run_form
from backend.config import home as home_folder
from backend.data.example import bring_example
from backend.errors import InputError, JobNotFound
from backend.evaluation.cells.selection import (
    SavedSelection,
    list_selections,
    save_selection,
)
from backend.jobs import directory
from backend.jobs.directory import add_log, create_job, job_folder, now, read_request, write_status
from tests.helpers import as_read

MODELS = [
    {"key": "majority", "display_name": "Majority class", "presets": [], "checkpoints": [],
     "is_savable": True},
    {"key": "hgb", "display_name": "Gradient boosting", "presets": [], "checkpoints": [],
     "is_savable": False},
    {"key": "scgpt", "display_name": "scGPT", "presets": ["scgpt.whole_human", "scgpt.small"],
     "checkpoints": ["whole_human"], "is_savable": True},
]  # fmt: skip


def words(app):
    parts = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error]
    return "\n".join(str(part.value) for part in parts)


def button(app, key):
    return next((found for found in app.button if found.key == key), None)


@pytest.fixture
def own_home(empty_home, home, monkeypatch):
    """A fresh folder of jobs, beside the small results."""
    monkeypatch.setenv("FAULTLINE_PRECOMPUTED", str(home))
    return empty_home


@pytest.fixture
def job(own_home):
    """Return a function that makes a job in some state."""

    def made(state="queued", *, owner="local", **changes):
        job_id = create_job(
            own_home, "run", {"model": "majority", "dataset": "d/x.h5ad"}, owner=owner
        )
        folder = job_folder(own_home, job_id)
        status = directory.read_status(own_home, job_id, owner=owner)
        ended = None if state in ("queued", "running") else now()
        write_status(folder, status.with_(state=state, ended_at=ended, **changes))
        add_log(folder, "a line of the log")
        return job_id

    return made


def test_runs_are_listed_with_their_state(open_page):
    app = open_page("runs")
    text = words(app)
    assert not app.exception
    assert FOOTER in text
    assert "1 failed" in text or "2 failed" in text
    assert "5 of 5 folds" in set(app.dataframe[0].value["status_text"])
    series = app.selectbox(key="series").options
    assert any("Logistic regression (L1)" in name for name in series)


def test_series_shows_provenance_and_reason_of_failures(open_page):
    app = open_page("runs")
    failing = next(row.series_id for row in app.dataframe[0].value.itertuples() if row.n_failed)
    app.selectbox(key="series").set_value(failing).run()
    text = words(app)
    assert not app.exception
    assert "Fold 3 failed:" in text
    assert "sha256" in text
    assert "Trained on" in text
    # Shipped results are nobody's to delete.
    assert not [found for found in app.button if str(found.key).startswith("runs.delete.")]


def test_card_and_curves_of_a_foundation_model(open_page, own_home):
    import pandas as pd

    from backend.config import precomputed_dir
    from backend.store.bundle import RunRecord, list_runs, read_run, write_run
    from backend.types import Series

    other = read_run(list_runs(precomputed_dir())[0])
    series = Series(
        dataset_id=other.dataset_id, protocol="donor", model="scgpt", preset="scgpt.small",
        init="pretrained", checkpoint="mine",
    )  # fmt: skip
    record = RunRecord.for_series(
        series, status="done", fold="final", split_sha256="0" * 64, checkpoint_sha256=None,
        recipe_version=1, display_name="scGPT small", classes=("B", "T"), n_train=100,
        wall_seconds=3.0, notes=("![x](http://evil/x.png)",),
    )  # fmt: skip
    history = pd.DataFrame(
        {"step": [5, 10], "epoch": [1, 2], "train_loss": [2.0, 1.0], "valid_loss": [2.1, 1.4],
         "macro_f1": [0.2, 0.5], "lr": [0.1, 0.0], "cells_per_second": [10.0, 11.0]}
    )  # fmt: skip
    report = {
        "share_loaded": 0.875,
        "genes": {"n_genes": 200, "n_matched": 150, "n_vocabulary": 9, "notes": []},
    }
    write_run(own_home, record, None, history=history, load_report=report, model_writer=None)
    app = open_page("runs")
    row = app.dataframe[0].value.set_index("series_id").loc[series.series_id]
    assert (row.genes_matched, row.share_loaded) == ("75%", "88%")
    app.selectbox(key="series").set_value(series.series_id).run()
    text = words(app)
    assert not app.exception
    assert "150 of 200 (75%)" in text
    assert "87.5% of the backbone" in text
    assert "![x](" not in text
    assert [button.label for button in app.get("download_button")].count("SVG") == 2
    # One's own run can be deleted, and is then gone from the page.
    button(app, f"runs.delete.{record.run_id}").click().run()
    assert not app.exception
    assert not (own_home / "runs" / record.run_id).exists()
    assert series.series_id not in set(app.dataframe[0].value["series_id"])


def test_page_without_results(own_home, open_page, monkeypatch):
    monkeypatch.setenv("FAULTLINE_PRECOMPUTED", str(own_home / "none"))
    app = open_page("runs")
    assert not app.exception
    assert "Nothing was run yet" in words(app)


def test_waiting_job_says_that_no_worker_runs(job, open_page):
    app = open_page("runs", job=job())
    text = words(app)
    assert not app.exception
    assert "No worker is running" in text
    assert "leads back to the job" in text
    assert "a line of the log" in app.code[0].value


def test_job_survives_a_new_session_and_its_end(job, own_home, open_page):
    job_id = job("running", progress=0.5, message="fold 0: fitting", heartbeat_at=now())
    assert "running" in words(open_page("runs", job=job_id))
    status = directory.read_status(own_home, job_id, owner="local")
    result = {"series_id": "a" * 16, "runs": [{}, {}], "n_failed": 1}
    write_status(job_folder(own_home, job_id), status.with_(state="done", result=result))
    text = words(open_page("runs", job=job_id))
    assert "2 fits of series" in text
    assert "1 failed" in text
    # Not simply done.
    assert ":orange-badge[:material/warning: finished with failures]" in text


def test_failed_job_shows_message_hint_and_log(job, open_page):
    app = open_page("runs", job=job("failed", message="No [memory](x).", hint="Use less."))
    assert "No [memory](x)." in as_read(app.error[0].value)
    assert "Use less." in as_read(app.error[0].value)
    assert "[memory](x)" not in app.error[0].value


@pytest.mark.parametrize("name", ["0123456789abcdef", "../../x", "<b>"])
def test_foreign_and_unknown_jobs_read_the_same(job, open_page, name):
    foreign = job(owner="somebody")
    texts = [as_read(words(open_page("runs", job=which))) for which in (foreign, name)]
    assert all("Job not found." in text for text in texts)
    reads = [text.partition("Reference")[0] for text in texts]
    assert reads[0] == reads[1]


def test_only_the_owners_jobs_are_listed(job, open_page):
    mine, theirs = job("done"), job("done", owner="somebody")
    app = open_page("runs", runs_view="Jobs")
    keys = {str(found.key) for found in app.button}
    assert f"jobs.delete.{mine}" in keys
    assert f"jobs.delete.{theirs}" not in keys


def test_job_is_cancelled_retried_and_deleted_by_buttons(job, own_home, open_page):
    job_id = job()
    app = open_page("runs", runs_view="Jobs")
    button(app, f"jobs.cancel.{job_id}").click().run()
    assert directory.read_status(own_home, job_id, owner="local").state == "cancelled"
    button(app, f"jobs.retry.{job_id}").click().run()
    assert directory.read_status(own_home, job_id, owner="local").attempt == 2
    button(app, f"jobs.delete.{job_id}").click().run()
    assert not app.exception
    with pytest.raises(JobNotFound):
        directory.read_status(own_home, job_id, owner="local")
    assert "No jobs." in words(app)


def test_live_curves_of_a_running_job(job, own_home, open_page):
    job_id = job("running", progress=0.5, heartbeat_at=now())
    rows = [
        {"fold": 0, "epoch": e, "step": 10 * e, "train_loss": 2.0 / e, "valid_loss": 2.1 / e,
         "macro_f1": 0.2 * e}
        for e in (1, 2)
    ]  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"fold": 0, "half'
    (job_folder(own_home, job_id) / "curve.jsonl").write_text(text)
    app = open_page("runs", job=job_id)
    assert not app.exception
    assert len(app.dataframe[0].value) == 6
    assert [found.label for found in app.get("download_button")].count("PNG") == 2


@pytest.fixture
def form(own_home, open_page, monkeypatch):
    """Return a function that opens the form on a server with one dataset."""
    checked = []
    monkeypatch.setattr(cache, "trainable_models", lambda: MODELS)
    monkeypatch.setattr(run_dataset, "server_files", lambda: ["data/course.h5ad"])

    def passed(*asked):
        checked.append(asked)
        return {"gaps": [], "folds": None}

    monkeypatch.setattr(run_form, "check_request", passed)

    def opened():
        app = open_page("runs", runs_view="Start a run")
        app.checked = checked
        return app

    return opened


def test_form_queues_what_was_chosen(form, own_home):
    app = form()
    assert "No worker is running" in words(app)
    app.selectbox(key="runs.model").set_value("scgpt").run()
    assert app.selectbox(key="runs.preset").value == "scgpt.small"
    app.selectbox(key="runs.init").set_value("pretrained").run()
    app.text_area(key="runs.settings").set_value("epochs=2\nloss=focal")
    button(app, "runs.start").click().run()
    assert not app.exception
    (status,) = directory.list_jobs(own_home, owner="local")
    request = read_request(own_home, status.job_id, owner="local")
    assert request["settings"] == {"epochs": 2, "loss": "focal"}
    assert (request["preset"], request["checkpoint"]) == ("scgpt.small", "whole_human")
    assert request["is_shared"] is True
    assert app.query_params["job"] == status.job_id
    assert "Training" in words(app)


def test_form_refuses_before_queueing(form, own_home, monkeypatch):
    def refuse(*_):
        msg = "scGPT has no setting epochz."
        raise InputError(msg, "Did you mean epochs?")

    app = form()
    app.text_area(key="runs.settings").set_value("epochs")
    button(app, "runs.start").click().run()
    assert "is not NAME=VALUE" in as_read(app.error[0].value)
    monkeypatch.setattr(run_form, "check_request", refuse)
    app.text_area(key="runs.settings").set_value("epochz=1")
    button(app, "runs.start").click().run()
    assert "Did you mean epochs?" in as_read(app.error[0].value)
    assert directory.list_jobs(own_home, owner="local") == []


def test_model_that_cannot_be_saved_has_no_final_fit(form):
    app = form()
    app.selectbox(key="runs.model").set_value("hgb").run()
    assert len(app.selectbox(key="runs.fits").options) == 1


def test_form_queues_a_sweep(form, own_home):
    app = form()
    app.segmented_control(key="runs.what").set_value("A plan of many runs").run()
    button(app, "runs.start").click().run()
    (status,) = directory.list_jobs(own_home, owner="local")
    assert status.kind == "sweep"
    assert read_request(own_home, status.job_id, owner="local")["plan"].endswith(".toml")


def test_form_asks_before_folds_that_test_no_cell_of_a_timepoint(form, own_home, monkeypatch):
    def found(kind, values, *_):
        few = values["folds"] > 3
        return {"gaps": ["Relapse has 3 donors for 5 folds."] if few else [], "folds": 3}

    app = form()
    monkeypatch.setattr(run_form, "check_request", found)
    button(app, "runs.start").click().run()
    assert "3 folds would work." in as_read(app.warning[-1].value)
    assert directory.list_jobs(own_home, owner="local") == []
    button(app, "runs.use_folds").click().run()
    assert app.selectbox(key="runs.folds").value == 3
    assert button(app, "runs.all_the_same") is None
    app.selectbox(key="runs.folds").set_value(5).run()
    button(app, "runs.start").click().run()
    button(app, "runs.all_the_same").click().run()
    (status,) = directory.list_jobs(own_home, owner="local")
    assert read_request(own_home, status.job_id, owner="local")["folds"] == 5


def test_own_upload_is_offered_with_its_columns(own_home, open_page, monkeypatch):
    monkeypatch.delenv("FAULTLINE_DATA_DIRS", raising=False)
    monkeypatch.setattr(cache, "trainable_models", lambda: MODELS)
    monkeypatch.setattr(run_form, "check_request", lambda *_: {"gaps": [], "folds": None})
    upload = bring_example(own_home, "local")
    bring_example(own_home, "somebody")
    app = open_page("runs", runs_view="Start a run")
    assert not app.exception
    (label,) = app.selectbox(key="runs.dataset").options
    assert "your upload" in label
    button(app, "runs.start").click().run()
    (status,) = directory.list_jobs(own_home, owner="local")
    request = read_request(own_home, status.job_id, owner="local")
    assert (request["upload"], request["is_shared"]) == (upload.upload_id, False)
    assert request["roles"]["cell_type"] == "cell_type"


def test_server_without_datasets_says_how_to_offer_some(own_home, open_page, monkeypatch):
    monkeypatch.delenv("FAULTLINE_DATA_DIRS", raising=False)
    assert "FAULTLINE_DATA_DIRS" in words(open_page("runs", runs_view="Start a run"))


@pytest.fixture
def viewer(monkeypatch):
    who = Identity("someone", "viewer", may_write=False, reason="Your role is viewer.")
    for module in (jobs_component, run_form, run_dataset):
        monkeypatch.setattr(module, "identity", lambda: who)


@pytest.mark.usefixtures("viewer")
def test_viewer_sees_why_actions_are_off(job, form, open_page, own_home):
    job_id = job(owner="someone")
    app = open_page("runs", job=job_id)
    assert button(app, f"jobs.cancel.{job_id}").disabled
    assert button(app, f"jobs.cancel.{job_id}").help == "Your role is viewer."
    # What a page cannot be made to do, a message to the server cannot either.
    jobs_component._do(directory.cancel_job, job_id)
    assert directory.read_status(own_home, job_id, owner="someone").state == "queued"
    app = form()
    assert "Your role is viewer." in words(app)
    assert button(app, "runs.start") is None
    with pytest.raises(InputError, match="viewer"):
        jobs_component.start("run", {})


def test_saved_selections_are_listed_opened_and_deleted_by_their_owner(
    own_home, open_page, home, monkeypatch
):
    dataset_id = sorted(path.name for path in (home / "datasets").iterdir())[0]
    mine = SavedSelection(
        kind="predicate", predicate={"label": ["T"]}, name="T [cells](x)",
        scope={"dataset_id": dataset_id, "configuration": "logreg", "protocol": "donor",
               "label_level": "lineage", "budget": "equal", "truth": "all", "timepoints": []},
    )  # fmt: skip
    theirs = SavedSelection(kind="cells", cells=[1], scope={"dataset_id": dataset_id})
    saved = save_selection(own_home, "local", mine)
    foreign = save_selection(own_home, "somebody", theirs)
    app = open_page("runs", runs_view="Saved selections")
    assert not app.exception
    assert "1 selection, seen by anyone who can open this address." in words(app)
    assert "[cells](x)" not in words(app)
    address = urlsplit(app.code[0].value)
    query = parse_qs(address.query)
    assert (address.path, query["sel"], query["dataset"]) == ("/failure_map", [saved], [dataset_id])
    opened = open_page("failure_map", **{key: values[0] for key, values in query.items()})
    assert "T" in words(opened)
    assert "not here" not in words(opened)
    # Deleting asks once; another's stays.
    button(app, f"selections.delete.{saved}").click().run()
    assert [kept.selection_id for kept in list_selections(own_home, "local")] == [saved]
    button(app, f"selections.sure.{saved}").click().run()
    assert "No saved selections." in words(app)
    saved_selections._delete(foreign)
    assert [kept.selection_id for kept in list_selections(own_home, "somebody")] == [foreign]


def test_everything_is_deleted_at_once(job, own_home, open_page):
    job("done")
    (own_home / "users" / "local" / "uploads").mkdir(parents=True)
    app = open_page("runs", runs_view="Jobs")
    assert button(app, "jobs.delete_all").disabled
    app.checkbox(key="jobs.sure").check().run()
    button(app, "jobs.delete_all").click().run()
    assert not app.exception
    assert directory.list_jobs(own_home, owner="local") == []
    assert not (own_home / "users" / "local").exists()
    assert home_folder() == own_home
