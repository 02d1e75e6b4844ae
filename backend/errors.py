"""Errors that a user can act on.

Every message says what is wrong and what was found; the hint says what to do.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "FaultlineError",
    "InputError",
    "JobFailed",
    "JobNotFound",
    "LabelError",
    "ModelUnavailable",
    "SplitError",
    "StoreError",
    "first_line",
    "is_utf8",
    "not_utf8",
    "shortened",
]


_LONGEST: Final = 2_000


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Return a text cut in its middle to at most `longest` characters."""
    if len(text) <= longest:
        return text
    half = (longest - 3) // 2
    return f"{text[:half]} … {text[-half:]}"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind when it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _written(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_utf8(text: str) -> bool:
    """Say whether a text can be written to files and pages; a name on disk may be other bytes."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


class FaultlineError(Exception):
    """Base of all errors that are shown to a user.

    Parameters
    ----------
    message
        What is wrong and what was found.
    hint
        What to do about it; empty when the message already says so.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        # Names from a file may stand in it, and nobody reads a page of them.
        message, hint = _written(shortened(message)), _written(shortened(hint))
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InputError(FaultlineError):
    """A file or an argument from outside cannot be used."""


def not_utf8(what: str, text: str) -> InputError:
    """Return the refusal of a name that is not UTF-8."""
    return InputError(f"{what} `{text}` is not valid UTF-8.", "Rename the file or folder.")


class LabelError(FaultlineError):
    """Labels do not fit the label set or level they are used at."""


class SplitError(FaultlineError):
    """A split cannot be made or would leak."""


class ModelUnavailable(FaultlineError):  # noqa: N818 - reads as a state, not as a fault
    """A model, preset or checkpoint is unknown or not installed."""


class StoreError(FaultlineError):
    """A bundle or the store is missing, damaged or of another version."""


class JobFailed(FaultlineError):  # noqa: N818
    """A job ended without a result."""


class JobNotFound(FaultlineError):  # noqa: N818
    """There is no such job, or it belongs to someone else: the two read the same."""
