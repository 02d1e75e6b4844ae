"""Charts, colours, tables and files, without a browser."""

from __future__ import annotations

import dataclasses
import io

import altair as alt
import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app.components import export, frames, heatmap, palette, vega
from app.components.course_lines import course_lines
from app.components.figure import selected_points
from app.sections.overview.charts import score_dots
from app.sections.protocols.charts import gap_dots, slopes
from app.state import Source
from backend.evaluation.metrics import METRICS
from backend.types import TIMEPOINTS
from tests.helpers import as_read


def badges_app(texts: dict[str, str]) -> None:
    import pandas as pd

    from app.components.convergence import convergence_badges

    rows = [{"display_name": name, "convergence": text} for name, text in texts.items()]
    convergence_badges(pd.DataFrame(rows * 2))


def test_networks_say_how_their_training_ended():
    texts = {
        "scGPT_small": "stopped improving",
        "Geneformer": "still improving when stopped (2 of 5 folds)",
        "scBERT": "stopped improving",
        "Majority class": "",
    }
    app = AppTest.from_function(badges_app, kwargs={"texts": texts}).run()
    (said,) = [one.value for one in app.markdown]
    assert ":green-badge[stopped improving] scGPT\\_small; scBERT" in said
    assert ":orange-badge[still improving when stopped (2 of 5 folds)] Geneformer" in said
    assert "Majority" not in said


def test_baselines_alone_have_no_badge():
    app = AppTest.from_function(badges_app, kwargs={"texts": {"Majority class": ""}}).run()
    assert not app.markdown
    assert not app.exception


REAL = Source(
    "van Galen 2019", simulated=False, label_level="lineage", protocol="donor", truth="all"
)
SIMULATED = Source("Course", simulated=True, label_level="fine", protocol="random", truth="mutant")


def scores(**changes) -> pd.DataFrame:
    rows = [
        {
            "configuration": key,
            "display_name": name,
            "timepoint": timepoint,
            "metric": "macro_f1",
            "value": 0.7 - 0.1 * number,
            "low": np.nan if timepoint == "Healthy" else 0.5,
            "high": np.nan if timepoint == "Healthy" else 0.8,
            "interval": "none" if timepoint == "Healthy" else "jackknife",
            "n_cells": 900,
            "n_donors": 3 if timepoint == "Healthy" else 13,
            "n_types_scored": 12,
            "n_types": 15,
            "n_seeds": 1,
            "status_text": "5 of 5 folds",
        }
        | changes
        for number, (key, name) in enumerate([("logreg", "L1 logistic regression"), ("hgb", "HGB")])
        for timepoint in ("Healthy", "Diagnosis")
    ]
    return pd.DataFrame(rows)


def donors() -> pd.DataFrame:
    return (
        scores()
        .assign(donor="AML1", seed=0)[
            ["configuration", "display_name", "timepoint", "donor", "seed", "value", "n_cells"]
        ]
        .assign(n_types=9)
    )


def averages() -> pd.DataFrame:
    names = scores()[["configuration", "display_name", "timepoint"]].drop_duplicates()
    return names.assign(accuracy=0.83, worst_type="pDC", worst_f1=0.18, is_baseline=True)


def dots(rows: pd.DataFrame) -> alt.LayerChart:
    return score_dots(rows, averages(), models=sorted(set(rows.display_name)), dark=False)


def all_charts() -> dict[str, alt.TopLevelMixin]:
    by_protocol = pd.DataFrame(
        {
            "configuration": ["logreg"] * 2,
            "display_name": ["L1 logistic regression"] * 2,
            "protocol": ["random", "donor"],
            "metric": "macro_f1",
            "value": [0.7, 0.6],
            "n_donors": 16,
            "n_cells": 900,
        }
    )
    types = pd.DataFrame(
        {
            "cell_type": ["HSC", "CLP"],
            "column": "HGB",
            "f1": [0.5, np.nan],
            "n_cells": [900, 3],
            "n_donors": [16, 2],
            "is_small": [False, True],
        }
    )
    gaps = scores().drop_duplicates("configuration").assign(gap=[0.1, -0.02])
    return {
        "dots": dots(scores()),
        "lines": course_lines(scores(), donors(), timepoints=TIMEPOINTS, dark=True),
        "slopes": slopes(by_protocol, protocols=["random", "donor"], dark=False),
        "gaps": gap_dots(gaps, name="display_name", title="Gap", dark=False),
        "heatmap": heatmap.heatmap(
            types, row="cell_type", column="column", rows=["CLP", "HSC"], columns=["HGB"],
            row_title="Cell type", column_title="Model", dark=False,
        ),
    }  # fmt: skip


CHARTS = all_charts()


@pytest.mark.parametrize("name", CHARTS)
def test_chart_becomes_a_picture_with_title_source_and_footer(name):
    svg = export.picture_bytes(CHARTS[name], SIMULATED, "Title of it", "svg").decode()
    for text in ("Title of it", "SIMULATED DATA, not a finding", export.FOOTER):
        assert text in svg


def test_png_is_a_png():
    png = export.picture_bytes(CHARTS["gaps"], REAL, "Gap", "png")
    assert png.startswith(b"\x89PNG")


def test_missing_timepoint_is_drawn_as_no_data():
    spec = CHARTS["lines"].to_json()
    assert spec.count("no data") >= 3
    svg = export.picture_bytes(CHARTS["lines"], REAL, "Course", "svg").decode()
    assert "Relapse" in svg
    assert "no data" in svg


def test_lines_are_not_carried_across_a_missing_timepoint():
    rows = scores()
    rows.loc[rows.timepoint == "Healthy", "timepoint"] = "Relapse"
    spec = course_lines(rows, donors(), timepoints=TIMEPOINTS, dark=False).to_dict()
    lines = [
        row
        for data in spec["datasets"].values()
        for row in data
        if row.get("configuration") == "logreg" and "donor" not in row and "low" in row
    ]
    gaps = {row["timepoint"] for row in lines if row["value"] is None}
    assert gaps == {"Healthy", "Post-treatment"}


def test_axes_have_the_name_and_the_range_of_the_metric_of_their_rows(monkeypatch):
    signed = dataclasses.replace(METRICS["accuracy"], label="signed", range=(-1.0, 1.0))
    monkeypatch.setitem(METRICS, "accuracy", signed)
    rows = scores(metric="accuracy")
    course = course_lines(rows, donors(), timepoints=TIMEPOINTS, dark=False)
    for chart in (dots(rows), course):
        spec = chart.to_json()
        assert '"title": "Signed"' in spec
        assert "Macro-F1" not in spec
        assert "-1.0" in spec
    assert '"title": "Macro-F1"' in dots(scores()).to_json()


def test_what_an_average_hides_stands_in_its_row():
    svg = export.picture_bytes(CHARTS["dots"], REAL, "Overview", "svg").decode()
    assert svg.count(">0.83 · pDC 0.18<") == len(scores())


def test_score_without_interval_is_drawn_open():
    spec = CHARTS["dots"].to_dict()
    rows = next(iter(spec["datasets"].values()))
    assert {(r["timepoint"], r["has_interval"]) for r in rows} == {
        ("Healthy", False),
        ("Diagnosis", True),
    }


def test_small_cells_are_grey_but_not_hidden():
    rows = next(iter(CHARTS["heatmap"].to_dict()["datasets"].values()))
    assert {row["cell_type"]: row["is_grey"] for row in rows} == {"HSC": False, "CLP": True}
    assert {row["value_text"] for row in rows} == {"0.50", "–"}


def test_a_wrong_part_of_a_chart_is_refused_when_the_chart_becomes_a_file():
    assert not vega.schemapi.DEBUG_MODE
    wrong = alt.Chart(pd.DataFrame({"x": [1]})).mark_point(opacity="half").encode(x="x:Q")
    with pytest.raises(alt.utils.schemapi.SchemaValidationError, match="half"):
        vega.file_spec(alt.layer(wrong, wrong))


def test_csv_says_what_it_holds_and_what_it_is_for():
    frame = pd.DataFrame({"f1": [0.5], "n_cells": [10]})
    table = pd.read_csv(io.BytesIO(export.csv_bytes(frame, SIMULATED)))
    assert table.columns[0] == "dataset"
    assert table.data.tolist() == ["SIMULATED"]
    assert table.columns[-1] == "use"
    assert table.use.tolist() == [export.FOOTER]
    assert table.f1.tolist() == [0.5]


def test_csv_of_a_table_with_columns_of_the_provenance_keeps_both():
    frame = pd.DataFrame({"dataset": ["own"], "data": [1], "use": ["=1+1"], "=2+2": [3]})
    table = pd.read_csv(io.BytesIO(export.csv_bytes(frame, SIMULATED)), dtype=str)
    assert table["dataset"].tolist() == ["own"]
    assert table["dataset_of_scope"].tolist() == [SIMULATED.dataset]
    assert table["data_of_scope"].tolist() == ["SIMULATED"]
    assert table["use"].tolist() == ["'=1+1"]
    assert table["use_of_data"].tolist() == [export.FOOTER]
    assert table["'=2+2"].tolist() == ["3"]


def test_file_names_mark_simulated_data():
    assert "SIMULATED" in export.file_name(SIMULATED, "f1", "csv")
    assert export.file_name(REAL, "f1 by type", "svg") == (
        "faultline-van-galen-2019-lineage-donor-f1-by-type.svg"
    )


def test_a_type_keeps_its_colour_whatever_else_is_shown():
    families = {"HSC": "Stem and progenitor", "HSC-like": "Stem and progenitor", "T": "T and NK"}
    every = palette.type_colours(families)
    assert palette.type_colours({"HSC": "Stem and progenitor"})["HSC"] == every["HSC"]
    assert len(set(every.values())) == 3


def test_models_outcomes_and_timepoints_differ_by_shape_too():
    models = {"majority": "M", "logreg": "L", "celltypist": "C", "hgb": "H"}
    assert len(set(palette.model_shapes(models).values())) == 4
    assert len(set(palette.outcome_shapes().values())) == 4
    assert len(set(palette.timepoint_shapes(TIMEPOINTS).values())) == 4


def _contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("dark", "background"), [(False, "#FFFFFF"), (True, "#171614")])
def test_text_stands_out_on_its_background(dark, background):
    assert _contrast(palette.ink(dark=dark), background) >= 7
    assert _contrast(palette.SIMULATED[dark], background) >= 4.5
    for colour in palette.outcome_colours().values():
        assert _contrast(colour, background) >= 2.3


def test_selection_is_read_field_by_field():
    state = {"selection": {"dot": [{"configuration": "hgb", "timepoint": "Relapse", "x": 1}, {}]}}
    assert selected_points(state, ("configuration", "timepoint")) == [
        {"configuration": "hgb", "timepoint": "Relapse"}
    ]
    assert selected_points({"selection": {}}, ("x",)) == []
    assert selected_points(None, ("x",)) == []


def test_sentence_gets_the_display_name_of_its_key():
    models = {"hgb": "Gradient boosting", "hgb@fine": "Gradient boosting (fine)"}
    assert as_read(frames.with_display_name("`hgb@fine`: x", models)) == (
        "**Gradient boosting (fine)**: x"
    )
    assert frames.with_display_name("other", models) == "other"


def test_outcome_sentence_counts_labelled_cells_only():
    counts = pd.DataFrame({"outcome": ["correct", "wrong", "not scored"], "n_cells": [8, 2, 5]})
    text = frames.outcome_sentence(counts, "HGB", None)
    assert "2 of 10 labelled cells (20%)" in text
    assert "5 cells without a label" in text


def test_types_that_are_grey_everywhere_follow_the_others():
    scores = pd.DataFrame(
        {"cell_type": ["B", "HSC", "B", "HSC", "T"], "n_cells": [19, 19, 3, 20, 400]}
    )
    assert frames.readable_first(scores) == ["HSC", "T", "B"]
