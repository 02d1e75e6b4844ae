"""Names as nobody should give them, in results that are otherwise well formed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.helpers import MODELS, TYPES, Results, draw_cells, write_results

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EVIL", "FORBIDDEN", "NAMES", "write_hostile_results"]

EVIL: Final = "evil.invalid"
"""The host that no page may ask; its top-level domain never exists (RFC 2606)."""

NAMES: Final = {
    "image": f"HSC ![i](http://{EVIL}/i.png)",
    "link": f"GMP [l](http://{EVIL}/l) <http://{EVIL}/a>",
    "html": f"Mono <img src=http://{EVIL}/h.png onerror=alert(1)><b>bold</b>",
    "formula": "B $\\frac{evil}{2}$ $$x$$ **strong** :red[red] :material/home: :smile:",
    "sheet": '=HYPERLINK("http://evil.invalid/s","T")',
    "marks": "NK \u202egnitpurroc\u202c \u200bzero\u200d\ufeff",
    "long": "CLP " + "x" * 250,
}
FORBIDDEN: Final = (
    f"![i](http://{EVIL}",
    f"[l](http://{EVIL}",
    f"<http://{EVIL}",
    f"<img src=http://{EVIL}",
    "<b>bold",
    "$\\frac{evil",
    "**strong**",
    ":red[red]",
    ":material/home:",
    ":smile:",
    "\u202e",
    "\u200b",
)
"""What no text that is read as Markdown may hold."""


def write_hostile_results(root: Path) -> list[Results]:
    """Write two datasets whose types, donors, samples, studies, models and names are hostile."""
    names = list(NAMES.values())
    written = []
    for simulated in (False, True):
        cells = draw_cells(cells_per_sample=30, seed=3)
        types = dict(zip(TYPES, names, strict=True))
        for level in ("lineage", "fine"):
            column = f"cell_type_{level}"
            cells[column] = cells[column].replace(
                types | {f"{old}-like": f"{new}-like" for old, new in types.items()}
            )
        for column in ("donor", "study", "sample"):
            known = sorted(cells[column].unique())
            called = [f"{i} {names[i % len(names)]}" for i in range(len(known))]
            cells[column] = cells[column].replace(dict(zip(known, called, strict=True)))
        cells["cell_id"] = cells["cell_id"] + names[0]
        written.append(
            write_results(
                root,
                cells=cells,
                name=f"Course {simulated} {' '.join(names[:5])}",
                simulated=simulated,
                source=f"source {names[0]}",
                models={
                    key: (f"{shown} {names[i]}", seeds)
                    for i, (key, (shown, seeds)) in enumerate(MODELS.items())
                },
            )
        )
    return written
