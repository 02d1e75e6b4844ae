"""The one list of protocols: how the cells of one dataset are kept apart, in words and by whom.

A new protocol is one entry here, with a function in `backend.splits.folds` that assigns its folds.
Nothing here imports more than the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backend.errors import InputError

__all__ = [
    "EXTERNAL",
    "PROTOCOLS",
    "Protocol",
    "protocol_label",
    "protocol_named",
    "protocol_text",
    "tested_on",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How the cells of one dataset are kept apart.

    Parameters
    ----------
    key
        Its name in files, addresses and commands.
    seed
        Second word of the seed of its draws. It is its own for ever: another one, or one that two
        protocols share, would change splits that runs already name by their hash.
    unit
        What is never on both sides of a fold: "cell", or a role whose cells are dealt as a whole.
    label
        Its name in a sentence.
    text
        What it means for a reader.
    tested_on
        In plain words, what models are tested on: "new patients".
    assign
        `module:function` that deals cells to folds; see `backend.splits.folds`.
    compared_with
        The milder protocol that it is set against on the page Protocols; "" for none.
    """

    key: str
    seed: int
    unit: str
    label: str
    text: str
    tested_on: str
    assign: str
    compared_with: str = ""

    @property
    def shares_donors(self) -> bool:
        """Whether cells of one donor may lie on both sides of a fold."""
        return self.unit == "cell"


PROTOCOLS: Final = {
    protocol.key: protocol
    for protocol in (
        Protocol(
            key="random",
            seed=0,
            unit="cell",
            label="random",
            text="cells split at random, so a donor's cells are in training and in test",
            tested_on="known patients",
            assign="backend.splits.folds:by_cell",
        ),
        Protocol(
            key="donor",
            seed=1,
            unit="donor",
            label="donor-held-out",
            text="a test donor is never trained on",
            tested_on="new patients",
            assign="backend.splits.folds:by_donor",
            compared_with="random",
        ),
        Protocol(
            key="study",
            seed=2,
            unit="study",
            label="study-held-out",
            text="a test study is never trained on (cross-experiment)",
            tested_on="new studies",
            assign="backend.splits.folds:by_study",
            compared_with="donor",
        ),
    )
}
"""Key to protocol, the most flattering one first. Seeds 10 and 11 belong to the budgets."""

EXTERNAL: Final = "external"
"""In the place of a protocol: predicted by a model of another dataset, or imported."""

_EXTERNAL_TESTED_ON: Final = "another dataset"
_EXTERNAL_TEXT: Final = (
    "predicted by a model of another dataset, or imported; cells and donors that the model was "
    "fitted on are not scored"
)


def protocol_named(key: str) -> Protocol:
    """Return a protocol by its key.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if key not in PROTOCOLS:
        msg = f'There is no protocol "{key}".'
        raise InputError(msg, f"Choose among: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[key]


def protocol_label(key: str) -> str:
    """Return the name in a sentence of a protocol, or of `EXTERNAL` in its place."""
    return EXTERNAL if key == EXTERNAL else protocol_named(key).label


def protocol_text(key: str) -> str:
    """Return what a protocol, or `EXTERNAL` in its place, means for a reader."""
    return _EXTERNAL_TEXT if key == EXTERNAL else protocol_named(key).text


def tested_on(key: str) -> str:
    """Return in plain words what a protocol, or `EXTERNAL` in its place, tests models on."""
    return _EXTERNAL_TESTED_ON if key == EXTERNAL else protocol_named(key).tested_on
