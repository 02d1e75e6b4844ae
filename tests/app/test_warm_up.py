"""What the server prepares is what the pages ask first."""

from __future__ import annotations

import pytest

from app import cache, warm_up
from app.identity import LOCAL
from app.state import CONFIGURATION
from backend.store.cache import Store


@pytest.fixture(scope="module", autouse=True)
def prepared(home) -> None:
    warm_up.ask_first_page()
    warm_up.ask_other_pages()


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """Names of the queries that reach the store from now on."""
    names: list[str] = []
    query = Store.query

    def recorded(self, name, **parameters):
        names.append(name)
        return query(self, name, **parameters)

    monkeypatch.setattr(Store, "query", recorded)
    return names


@pytest.mark.parametrize(
    "key",
    [
        "overview",
        "blasts",
        "timepoints",
        "cell_types",
        "failure_map",
        "confusions",
        "donors",
        "protocols",
        "published",
    ],
)
def test_a_prepared_page_asks_the_store_for_no_score(open_page, asked, key):
    app = open_page(key)
    assert not app.exception
    # Rows of a table of single cells are read when they are shown.
    assert set(asked) <= ({"selection_rows"} if key == "failure_map" else set())


def test_another_scope_is_asked_for(open_page, asked):
    assert not open_page("overview", protocol="random").exception
    assert asked


def test_what_is_prepared_is_what_opens(open_page):
    app = open_page("donors")
    scope = warm_up.opening_scope(cache.scope_choices(LOCAL))
    assert app.session_state["faultline.scope"] == scope
    assert app.session_state[CONFIGURATION] == warm_up.opening_model(scope)


def test_nothing_is_prepared_where_there_are_no_results(empty_home):
    warm_up.ask_first_page()
    warm_up.ask_other_pages()
