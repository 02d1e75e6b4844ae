"""Refusals with a code, so that a report can name them and a test can tell them apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from backend.errors import InputError

__all__ = ["Problem", "Refusal", "some"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a file cannot be used.

    code : one word per kind of problem, stable over releases
    message : what is wrong and what was found
    hint : what to do
    """

    code: str
    message: str
    hint: str

    def to_json(self) -> dict[str, str]:
        """Return plain values."""
        return asdict(self)


class Refusal(InputError):  # noqa: N818 - reads as what it is
    """A file that cannot be used, with the code of the reason."""

    def __init__(self, message: str, hint: str = "", *, code: str) -> None:
        super().__init__(message, hint)
        self.code = code

    @property
    def problem(self) -> Problem:
        """The refusal as a part of a report."""
        return Problem(self.code, self.message, self.hint)


def some(names: object, limit: int = 5) -> str:
    """Name at most `limit` of some names, sorted, and say how many more there are."""
    listed = sorted(str(name) for name in names)  # type: ignore[attr-defined]
    shown = ", ".join(name if len(name) <= 60 else f"{name[:57]}…" for name in listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"
