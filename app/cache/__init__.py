"""Every cached call of the dashboard; nothing else caches.

Results are keyed by the scope and by the version of the store, so that new bundles replace old
answers by key. The store itself is one handle for the process; it takes a cursor per call.
"""

from app.cache.cells import (
    cells_on_map,
    probability_vector,
    selected_cells,
    selected_rows,
    selection_summary,
    wrong_models,
)
from app.cache.charts import chart_spec
from app.cache.files import (
    inspected_table,
    inspected_upload,
    outside,
    own_labels,
    run_cards,
    runs_overview,
    stored_models,
    trainable_models,
)
from app.cache.genes import expression_of, pairs_of_failures, separating_genes
from app.cache.scores import (
    absent_models,
    answers,
    averages,
    blasts,
    configurations,
    confusions,
    disagreement,
    f1_by_cell_type,
    model_differences,
    optimism,
    overview,
    patient_courses,
    provenance,
    published,
    runs_of,
    scope_choices,
    scores_by_donor,
    scores_by_timepoint,
    series_table,
    timepoints,
)
from app.cache.store import (
    ask,
    refresh,
    store_notice,
    store_version,
)

__all__ = [
    "absent_models",
    "answers",
    "ask",
    "averages",
    "blasts",
    "cells_on_map",
    "chart_spec",
    "configurations",
    "confusions",
    "disagreement",
    "expression_of",
    "f1_by_cell_type",
    "inspected_table",
    "inspected_upload",
    "model_differences",
    "optimism",
    "outside",
    "overview",
    "own_labels",
    "pairs_of_failures",
    "patient_courses",
    "probability_vector",
    "provenance",
    "published",
    "refresh",
    "run_cards",
    "runs_of",
    "runs_overview",
    "scope_choices",
    "scores_by_donor",
    "scores_by_timepoint",
    "selected_cells",
    "selected_rows",
    "selection_summary",
    "separating_genes",
    "series_table",
    "store_notice",
    "store_version",
    "stored_models",
    "timepoints",
    "trainable_models",
    "wrong_models",
]
