"""One function per page question; pages, CLI and reports read scores only through these."""

from __future__ import annotations

from backend.evaluation.views.answer import Answer, answers
from backend.evaluation.views.averages import AVERAGES, averages
from backend.evaluation.views.beside_reference import (
    MALIGNANT,
    BesideReference,
    Composition,
    beside_reference,
    compositions,
)
from backend.evaluation.views.blasts import CALLED, Blasts, blasts
from backend.evaluation.views.cell_types import f1_by_cell_type
from backend.evaluation.views.choices import (
    absent_models,
    configurations,
    scope_choices,
    series_table,
)
from backend.evaluation.views.confusions import (
    AGREEMENTS,
    Confusions,
    Disagreement,
    confusions,
    disagreement,
)
from backend.evaluation.views.donors import scores_by_donor
from backend.evaluation.views.expected import Expected, expected_accuracy, expected_table
from backend.evaluation.views.overview import COLLAPSE_F1, overview, provenance
from backend.evaluation.views.patients import PatientCourses, patient_courses
from backend.evaluation.views.protocols import optimism
from backend.evaluation.views.published import NOT_RUN, Published, published
from backend.evaluation.views.results import (
    CellTypeScores,
    DonorScores,
    ModelDifferences,
    OptimismScores,
    Overview,
    Provenance,
    TimepointScores,
)
from backend.evaluation.views.timepoints import model_differences, scores_by_timepoint

__all__ = [
    "AGREEMENTS",
    "AVERAGES",
    "CALLED",
    "COLLAPSE_F1",
    "MALIGNANT",
    "NOT_RUN",
    "Answer",
    "BesideReference",
    "Blasts",
    "CellTypeScores",
    "Composition",
    "Confusions",
    "Disagreement",
    "DonorScores",
    "Expected",
    "ModelDifferences",
    "OptimismScores",
    "Overview",
    "PatientCourses",
    "Provenance",
    "Published",
    "TimepointScores",
    "absent_models",
    "answers",
    "averages",
    "beside_reference",
    "blasts",
    "compositions",
    "configurations",
    "confusions",
    "disagreement",
    "expected_accuracy",
    "expected_table",
    "f1_by_cell_type",
    "model_differences",
    "optimism",
    "overview",
    "patient_courses",
    "provenance",
    "published",
    "scope_choices",
    "scores_by_donor",
    "scores_by_timepoint",
    "series_table",
]
