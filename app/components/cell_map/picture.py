"""The map as a file: points as a raster inside vector axes, with legend, title and source."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np

from app.components.cell_map.legend import TITLES, VIRIDIS, Facets, colours_of
from app.components.export import FOOTER
from backend.evaluation.cells.coordinates import binned
from backend.evaluation.outcomes import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from backend.evaluation.cells.colours import ColourColumn
    from backend.evaluation.cells.map_cells import MapCells

__all__ = ["FORMATS", "density_bytes", "picture_bytes"]

FORMATS: Final = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"}

_GREY: Final = "#9A9A9A"
_DPI: Final = 200
_MOST_NAMES: Final = 60


def _classes(cells: MapCells, in_scope: np.ndarray) -> np.ndarray:
    """Return the order of drawing: 0 outside the filters, 1 others, 2 failures."""
    return np.where(in_scope, 1 + cells.is_wrong, 0)


def _colours(column: ColourColumn, continuous: np.ndarray) -> np.ndarray:
    """Return (n, 3) colours of all cells, 0 to 1."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    if column.mode == "continuous":
        scale = LinearSegmentedColormap.from_list("values", list(VIRIDIS))
        table = np.vstack([scale(np.linspace(0, 1, 255))[:, :3], to_rgb(_GREY)])
        return table[continuous]
    return np.array([to_rgb(colour) for colour in colours_of(column)])[column.codes]


def _draw(
    axes: Axes, cells: MapCells, colours: np.ndarray, order: np.ndarray, classes: np.ndarray
) -> None:
    n = len(cells)
    size = 0.4 if n > 100_000 else 1.2 if n > 30_000 else 4.0 if n > 300 else 20.0
    where = cells.coordinates
    for level, alpha in ((0, 0.25), (1, 0.55), (2, 0.95)):
        rows = order[classes[order] == level]
        axes.scatter(
            where.x_values(rows),
            where.y_values(rows),
            s=size * (1.8 if level == 2 else 1.0),
            c=colours[rows] if level else _GREY,
            alpha=alpha,
            linewidths=0,
            rasterized=True,
        )
    margin = 0.03 * max(where.x_max - where.x_min, where.y_max - where.y_min)
    axes.set_xlim(where.x_min - margin, where.x_max + margin)
    axes.set_ylim(where.y_min - margin, where.y_max + margin)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("UMAP 1")
    axes.set_ylabel("UMAP 2")


def _legend(figure: Figure, column: ColourColumn) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.lines import Line2D

    if column.mode == "continuous":
        scale = LinearSegmentedColormap.from_list("values", list(VIRIDIS))
        title = TITLES[column.by]
        figure.colorbar(ScalarMappable(cmap=scale), ax=figure.axes, label=title, shrink=0.6)
        return
    entries = [
        (f"{_plain(name)} ({n:,})", colour)
        for name, n, colour in zip(column.names, column.counts, colours_of(column), strict=True)
        if n
    ]
    more = len(entries) - _MOST_NAMES
    marks = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=text)
        for text, colour in entries[:_MOST_NAMES]
    ]
    if more > 0:
        marks.append(Line2D([], [], linestyle="", label=f"and {more} more"))
    figure.legend(
        handles=marks,
        loc="outside right upper",
        frameon=False,
        fontsize=8,
        ncols=1 + len(marks) // 31,
    )


def _plain(text: str) -> str:
    """Return a label as text: a dollar sign would begin a formula."""
    return _escaped(text if len(text) <= 40 else f"{text[:39]}…")


def _escaped(text: str) -> str:
    return text.replace("$", r"\$")


def picture_bytes(
    panels: Sequence[tuple[str, MapCells, ColourColumn]],
    continuous: Sequence[np.ndarray],
    in_scope: np.ndarray,
    facets: Facets,
    *,
    title: str,
    source: str,
    suffix: str,
) -> bytes:
    """Draw the whole map.

    Parameters
    ----------
    panels
        Name, cells and colours of each map; several for one map a model.
    continuous
        For each of them the codes of `colour_of_values`.
    facets
        Panels of the first map, where there is one only.
    suffix
        A key of `FORMATS`.
    """
    # Not pyplot, which keeps figures of all users in one place.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    parts: list[tuple[str, int, np.ndarray]] = [
        (name, i, np.ones(len(cells), dtype=bool)) for i, (name, cells, _) in enumerate(panels)
    ]
    if len(panels) == 1 and facets.names:
        parts = [(name, 0, facets.codes == code) for code, name in enumerate(facets.names)]
    columns = min(2, len(parts))
    rows = -(-len(parts) // columns)
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "faultline", "pdf.fonttype": 42, "font.size": 9}
    ):
        figure = Figure(figsize=(4.3 * columns + 3, 4.1 * rows + 1), layout="constrained")
        figure.get_layout_engine().set(rect=(0.0, 0.05, 1.0, 0.95))
        for place, (name, i, mask) in enumerate(parts, start=1):
            _, cells, column = panels[i]
            axes = figure.add_subplot(rows, columns, place)
            order = np.flatnonzero(mask & cells.coordinates.is_placed)
            _draw(axes, cells, _colours(column, continuous[i]), order, _classes(cells, in_scope))
            axes.set_title(_plain(name), fontsize=10)
        figure.suptitle(f"{_escaped(title)}\n{_escaped(source)}", fontsize=11)
        _legend(figure, panels[0][2])
        figure.text(0.01, 0.01, FOOTER, fontsize=7)
        target = BytesIO()
        # The same picture gives the same file.
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix)
        figure.savefig(target, format=suffix, dpi=_DPI, facecolor="white", metadata=metadata)
    return target.getvalue()


def density_bytes(cells: MapCells, in_scope: np.ndarray, *, dark: bool) -> bytes:
    """Draw how many cells lie where, and the share of failures among them, as a PNG.

    For browsers without WebGL: two pictures of 160 × 160 squares with their scales.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    scored = in_scope & (cells.outcome != OUTCOMES.index("not scored"))
    failed = scored & cells.is_wrong
    counts = binned(cells.coordinates, in_scope, bins=160).astype(float)
    n_scored = binned(cells.coordinates, scored, bins=160)
    n_failed = binned(cells.coordinates, failed, bins=160)
    share = np.divide(n_failed, n_scored, out=np.full(n_scored.shape, np.nan), where=n_scored > 0)
    counts[counts == 0] = np.nan
    ink, ground = ("#F2F0ED", "#0E1117") if dark else ("#141414", "white")
    figure = Figure(figsize=(11, 5), layout="constrained", facecolor=ground)
    where = cells.coordinates
    extent = (where.x_min, where.x_max, where.y_min, where.y_max)
    norms = (LogNorm(1, max(2.0, np.nanmax(counts))) if in_scope.any() else None, None)
    names = ("Cells in each square", "Share of failures in each square")
    for place, (values, name, norm) in enumerate(
        zip((counts, share), names, norms, strict=True), start=1
    ):
        axes = figure.add_subplot(1, 2, place, facecolor=ground)
        limits = {} if norm else {"vmin": 0, "vmax": 1}
        image = axes.imshow(
            values, origin="lower", extent=extent, cmap="viridis", norm=norm, **limits
        )
        axes.set_title(name, color=ink, fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("UMAP 1", color=ink)
        axes.set_ylabel("UMAP 2", color=ink)
        bar = figure.colorbar(image, ax=axes, shrink=0.8)
        bar.ax.tick_params(colors=ink)
    target = BytesIO()
    figure.savefig(target, format="png", dpi=110, facecolor=ground)
    return target.getvalue()
