"""The cell map without its picture: coordinates, colours, hit test, message, events."""

from __future__ import annotations

from backend.evaluation.cells.colours import (
    COLOUR_BY,
    ColourColumn,
    colour_column,
    colour_of_values,
)
from backend.evaluation.cells.columns import CellColumns, Hits, load_columns, load_hits, passes
from backend.evaluation.cells.coordinates import MISSING, Coordinates, quantise
from backend.evaluation.cells.density import binned
from backend.evaluation.cells.events import MODES, Event, read_event
from backend.evaluation.cells.hits import cells_inside, changed_selection, visible_cells
from backend.evaluation.cells.map_cells import (
    MapCells,
    cell_details,
    load_cells,
    wrong_models,
)
from backend.evaluation.cells.message import (
    COORDINATE_COLUMNS,
    MapMessage,
    decode,
    encode,
)
from backend.evaluation.cells.places import (
    place_by_predictions,
    places_file,
    read_places,
    write_places,
)
from backend.evaluation.cells.summary import (
    count_outcomes,
    most_confident,
    most_confident_first,
)

__all__ = [
    "COLOUR_BY",
    "COORDINATE_COLUMNS",
    "MISSING",
    "MODES",
    "CellColumns",
    "ColourColumn",
    "Coordinates",
    "Event",
    "Hits",
    "MapCells",
    "MapMessage",
    "binned",
    "cell_details",
    "cells_inside",
    "changed_selection",
    "colour_column",
    "colour_of_values",
    "count_outcomes",
    "decode",
    "encode",
    "load_cells",
    "load_columns",
    "load_hits",
    "most_confident",
    "most_confident_first",
    "passes",
    "place_by_predictions",
    "places_file",
    "quantise",
    "read_event",
    "read_places",
    "visible_cells",
    "write_places",
    "wrong_models",
]
