"""What belongs to an upload is kept apart from what all sessions share."""

from __future__ import annotations

import pytest
import streamlit as st

from app.cache import store
from app.identity import LOCAL
from backend.store.cache import PUBLIC
from backend.types import Scope


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path))
    (tmp_path / "users" / "ada" / "datasets" / "private").mkdir(parents=True)
    return tmp_path


def test_only_an_upload_on_a_server_of_several_people_is_private(home):
    assert store.is_private("ada", "private")
    assert store.is_private("ada", None)
    assert not store.is_private("ada", "open")
    assert not store.is_private("bea", None)
    assert not store.is_private("bea", "private")
    (home / "users" / LOCAL / "datasets" / "private").mkdir(parents=True)
    assert not store.is_private(LOCAL, "private")
    assert not store.is_private(PUBLIC, None)


@pytest.mark.parametrize("kind", [st.cache_data, st.cache_resource])
def test_an_answer_about_an_upload_is_cached_in_its_session(home, kind):
    def told(**options):
        kind(**options)
        return lambda function: lambda *args, **kwargs: options.get("scope", "global")

    answer = store.apart(told, max_entries=4)(lambda version, scope: "")
    by_name = store.apart(told, max_entries=4)(lambda owner, dataset_id=None: "")
    assert answer("1", Scope(dataset_id="private", owner="ada")) == "session"
    assert answer("1", Scope(dataset_id="open", owner="ada")) == "global"
    assert answer("1", Scope(dataset_id="private", owner="bea")) == "global"
    assert by_name(owner="ada") == "session"
    assert by_name(owner="ada", dataset_id="open") == "global"
    assert by_name(owner="bea") == "global"
