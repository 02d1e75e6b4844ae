"""Published data sets whose files are known: one entry each, recognised by what the files hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from backend.data.problems import Refusal
from backend.data.profiles.base import Profile
from backend.data.profiles.ennis2023 import ENNIS2023
from backend.data.profiles.vangalen2019 import VANGALEN2019

if TYPE_CHECKING:
    import h5py

__all__ = ["PROFILES", "Profile", "profile_named", "profile_of", "profile_of_source"]

PROFILES: Final = {profile.key: profile for profile in (VANGALEN2019, ENNIS2023)}


def profile_named(key: str | None) -> Profile | None:
    """Return a profile by its key; None for no key."""
    return PROFILES[key] if key else None


def profile_of(file: h5py.Group, asked: str | None = None) -> Profile | None:
    """Return the profile by which a file is read, None for any file.

    Parameters
    ----------
    asked
        Key of the profile that a person wants, "" for none, None to recognise it.

    Raises
    ------
    Refusal
        If there is no such profile, or the file is not of its form.
    """
    if asked == "":
        return None
    readable = {key: one for key, one in PROFILES.items() if one.form is not None}
    if asked is None:
        return next((one for one in readable.values() if one.form.recognises(file)), None)  # type: ignore[union-attr]
    if asked not in readable:
        msg = f'There is no profile "{asked[:40]}" of files.'
        raise Refusal(msg, f"Choose one of: {', '.join(readable)}.", code="profile")
    profile = readable[asked]
    if not profile.form.recognises(file):  # type: ignore[union-attr]
        msg = f"The file is not of the form of {profile.title}: its columns or words differ."
        hint = f"docs/{profile.page} says what is looked for; without the profile it is any file."
        raise Refusal(msg, hint, code="profile")
    return profile


def profile_of_source(source: str) -> Profile | None:
    """Return the profile that a dataset's `source` names."""
    return next((one for one in PROFILES.values() if one.accession in source), None)
