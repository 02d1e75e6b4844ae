"""Which cells are set against which when genes of failures are asked for."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from backend.data.problems import some
from backend.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from backend.evaluation.cells.columns import Role
    from backend.evaluation.cells.map_cells import MapCells

__all__ = ["AGAINST", "Against", "Contrast", "contrast_of"]

Against = Literal["label", "predicted", "both"]

AGAINST: Final[dict[Against, str]] = {
    "label": "correctly called cells of the same label",
    "predicted": "true cells of the predicted type",
    "both": "both",
}
"""What failures can be set against, in words."""
_NAMED: Final = 12
"""Types that a refusal lists."""


@dataclass(frozen=True, eq=False)
class Contrast:
    """Failures of one label and one call, and the cells that they are set against.

    label, predicted : what the failures are, and are called
    is_failure, is_reference : (n_cells,) bool, of no cell both
    """

    label: str
    predicted: str
    against: Against
    is_failure: np.ndarray
    is_reference: np.ndarray

    @property
    def sentence(self) -> str:
        """Say what is compared, with its numbers of cells."""
        n_failures, n_others = int(self.is_failure.sum()), int(self.is_reference.sum())
        sets = {
            "label": f"{n_others:,} {self.label} that are called {self.label}",
            "predicted": f"{n_others:,} true {self.predicted}",
            "both": f"{n_others:,} {self.label} that are called so, and true {self.predicted}",
        }
        return f"{n_failures:,} {self.label} called {self.predicted} against {sets[self.against]}"


def contrast_of(
    cells: MapCells,
    in_scope: np.ndarray,
    *,
    label: str,
    predicted: str,
    against: Against = "label",
    chosen: np.ndarray | None = None,
) -> Contrast:
    """Return the failures of a label with one call, and what they are set against.

    Parameters
    ----------
    cells
        Labels and test predictions of one series.
    in_scope
        (n_cells,) cells that count at all.
    chosen
        (n_cells,) cells that a user selected: failures come from among these.

    Raises
    ------
    InputError
        If one side has no cell, or label and call are the same.
    """
    if label == predicted:
        msg = f"{label} called {predicted} is no failure."
        raise InputError(msg, "Give the type that the cells are wrongly called.")
    own, called = cells.roles["label"], cells.roles["predicted"]
    is_label, is_called = _is(own, label, "label"), _is(called, predicted, "call")
    is_failure = in_scope & is_label & is_called
    if chosen is not None:
        is_failure &= chosen
    is_right = in_scope & (own.codes >= 0) & (own.codes == called.coded_as(own.names))
    of_label = is_right & is_label
    of_predicted = in_scope & _is(own, predicted, "label", must=False)
    sets = {"label": of_label, "predicted": of_predicted, "both": of_label | of_predicted}
    found = Contrast(label, predicted, against, is_failure, sets[against] & ~is_failure)
    if not is_failure.any():
        msg = f"No {label} is called {predicted} here."
        raise InputError(msg, "Choose a label and a call from the confusions, or wider filters.")
    if not found.is_reference.any():
        msg = f"There are no {AGAINST[against]} to set {label} called {predicted} against."
        others = [AGAINST[key] for key in ("label", "predicted") if sets[key].any()]
        hint = f"Set them against {others[0]}." if others else "Choose wider filters."
        raise InputError(msg, hint)
    return found


def _is(role: Role, name: str, what: str, *, must: bool = True) -> np.ndarray:
    if must and name not in role.names:
        msg = f'No cell has the {what} "{name[:40]}".'
        near = difflib.get_close_matches(name, role.names, n=1)
        hint = f"Perhaps {near[0]}? " if near else ""
        raise InputError(msg, f"{hint}There are {some(role.names, limit=_NAMED)}.")
    return role.is_among([name])
