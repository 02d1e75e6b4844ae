"""Every file that a page offers can be made, and is what its name says."""

from __future__ import annotations

import io
import warnings
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
import streamlit as st

from app import nav
from tests.app.conftest import SIMULATED

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def offered(monkeypatch):
    """Return the list that fills with (file name, MIME type, content) of every download button."""
    found = []
    button = st.delta_generator.DeltaGenerator.download_button

    def noted(self, label, data, file_name=None, mime=None, **options):
        found.append((file_name, mime, data))
        return button(self, label, data, file_name=file_name, mime=mime, **options)

    monkeypatch.setattr(st.delta_generator.DeltaGenerator, "download_button", noted)
    monkeypatch.setattr(
        st, "download_button", lambda *given, **options: noted(st._main, *given, **options)
    )
    return found


def content(data) -> bytes:
    data = data() if callable(data) else data
    return data.encode() if isinstance(data, str) else data


@pytest.mark.slow
@pytest.mark.parametrize("dataset", [None, SIMULATED])
@pytest.mark.parametrize("key", [*(p.key for p in nav.PAGES if p.needs_results), "runs"])
def test_every_download_of_every_page_works(open_page, offered, key, dataset):
    app = open_page(key, **({"dataset": dataset} if dataset else {}))
    assert not app.exception
    n_buttons = len(app.get("download_button"))
    files = {name: (mime, data) for name, mime, data in offered}
    assert len(files) >= n_buttons > 0
    for name, (mime, data) in files.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = content(data)
        match name.rpartition(".")[2], mime:
            case "csv", "text/csv":
                table = pd.read_csv(io.BytesIO(made))
                assert len(table), name
                assert table.columns[0].startswith("dataset")
                assert table.columns[-1].startswith("use")
            case "png", "image/png":
                assert made.startswith(PNG), name
                assert len(made) > 2_000, name
            case "svg", "image/svg+xml":
                assert ET.fromstring(made).tag.endswith("svg"), name
            case "pdf", "application/pdf":
                assert made.startswith(b"%PDF"), name
            case other:
                pytest.fail(f"{name} is offered as {other}")
        if dataset and "all-datasets" not in name:
            assert "SIMULATED" in name
