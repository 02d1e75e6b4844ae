"""Links keep their meaning: what the address holds, and what it asks for in vain."""

from __future__ import annotations

import pytest

from app import filters, nav
from tests.app.conftest import REAL, SIMULATED
from tests.app.test_pages import words


def held(app, key: str) -> str:
    """Return what the address holds, as text."""
    value = app.query_params[key]
    return value[0] if isinstance(value, list) else value


def dataset_of(app, name: str) -> str:
    choices = app.selectbox(key="dataset")
    return next(
        option for option, label in zip(ids(app), choices.options, strict=True) if name in label
    )


def ids(app) -> list[str]:
    from app import cache

    found = cache.scope_choices("local").drop_duplicates("dataset_id")
    return list(found.sort_values(["is_upload", "simulated", "name"]).dataset_id)


def test_the_address_names_the_dataset_and_what_could_be_another_default(seen):
    app = seen("overview")
    scope = app.session_state["faultline.scope"]
    assert held(app, "dataset") == scope.dataset_id
    assert held(app, "label_level") == "lineage"
    assert held(app, "protocol") == "donor"
    assert held(app, "budget") == "equal"


@pytest.mark.parametrize("by", ["id", "name"])
def test_a_link_may_name_the_dataset_by_its_id_or_as_older_ones_do(open_page, by):
    first = open_page("overview")
    wanted = dataset_of(first, SIMULATED)
    app = open_page("overview", dataset=wanted if by == "id" else SIMULATED, protocol="random")
    scope = app.session_state["faultline.scope"]
    assert (scope.dataset_id, scope.protocol) == (wanted, "random")
    assert held(app, "dataset") == wanted
    assert "which is not here" not in words(app)


def test_what_a_link_asks_for_in_vain_is_said(open_page):
    asked = {
        "dataset": ("0123456789abcdef", "dataset"),
        "protocol": ("study", "protocol"),
        "model": ("no such model", "model"),
        "timepoint": ("Relapse", "timepoint"),
        "budget": ("cap500", "training size"),
    }
    app = open_page("overview", **{name: [value] for name, (value, _) in asked.items()})
    assert not app.exception
    for value, word in asked.values():
        assert f"This link asked for {word} “{value}”, which is not here." in words(app)
    app.run()
    assert "This link asked for" not in words(app)


def test_a_model_that_is_not_here_is_said_on_the_page_of_one_model(open_page):
    app = open_page("donors", show="nobody")
    assert "This link asked for model “nobody”, which is not here." in words(app)


def test_a_link_names_the_model_whose_cells_it_shows(open_page):
    # Another model can be the first one later; the cells of a link are those of its own.
    app = open_page("confusions")
    shown = app.selectbox(key="show")
    assert held(app, "show") == shown.options[0]
    shown.select_index(1).run()
    assert not app.exception
    assert held(app, "show") == shown.options[1]
    other = open_page("confusions", show=shown.options[1])
    assert other.selectbox(key="show").index == 1


def test_of_many_names_in_vain_the_first_ones_are_said(open_page):
    app = open_page("overview", model=[f"m{number}" for number in range(300)])
    text = "model “m0”, “m1”, “m2”, “m3”, “m4” and 295 more, which is not here."
    assert text in words(app)


def test_a_choice_without_malignant_cells_is_not_said_of_the_dataset(open_page):
    app = open_page("blasts", timepoint=["Healthy"])
    assert "This choice holds no malignant cells" in words(app)
    assert "Widen the timepoints" in words(app)


def test_buttons_that_changed_under_a_click_leave_the_choice_as_it_was(open_page, monkeypatch):
    for name in ("segmented_control", "pills"):
        monkeypatch.setattr(filters.st, name, lambda *_args, **_kwargs: None)
    app = open_page("overview", protocol="random")
    assert not app.exception
    assert app.session_state["faultline.scope"].protocol == held(app, "protocol") == "random"


def test_a_choice_in_the_sidebar_changes_the_address(open_page):
    app = open_page("overview")
    app.selectbox(key="dataset").set_value(dataset_of(app, SIMULATED)).run()
    assert app.session_state["faultline.scope"].dataset_id == held(app, "dataset")
    app.segmented_control(key="protocol").set_value("random").run()
    assert app.session_state["faultline.scope"].protocol == "random"
    assert held(app, "protocol") == "random"
    assert "This link asked for" not in words(app)


def test_the_first_dataset_is_real_and_shipped(seen):
    app = seen("overview")
    assert REAL in app.selectbox(key="dataset").options[0]


def test_filters_stand_only_where_they_change_something_and_keep_their_values(open_page):
    def drawn(app):
        every = [*app.sidebar.selectbox, *app.sidebar.multiselect, *app.sidebar.segmented_control]
        return {one.key for one in every}

    app = open_page("overview", protocol="random")
    app.multiselect(key="timepoint").set_value(["Diagnosis"])
    app.selectbox(key="metric").set_value("accuracy").run()
    assert {"dataset", "label_level", "protocol", "model", "timepoint", "truth", "metric"} <= drawn(
        app
    )
    for page in ("methods", "runs"):
        app.switch_page(str(nav.page_file(page))).run()
        assert not drawn(app) & {"dataset", "protocol", "timepoint", "metric"}
    app.switch_page(str(nav.page_file("overview"))).run()
    scope = app.session_state["faultline.scope"]
    assert (scope.protocol, scope.timepoints) == ("random", ("Diagnosis",))
    assert app.selectbox(key="metric").value == "accuracy"
    assert "Only: Diagnosis" in words(app)
    app.button(key="filters.reset").click().run()
    assert app.session_state["faultline.scope"].timepoints == ()
    assert "Only: " not in words(app)


def test_from_blasts_cells_open_at_the_level_that_tells_malignant_ones(open_page):
    app = open_page("blasts", label_level="lineage")
    next(b for b in app.button if b.label == "See which cells fail").click().run()
    assert not app.exception
    assert [title.value for title in app.title] == ["Failure map"]
    assert app.session_state["faultline.scope"].label_level == "fine"
