"""What a profile is: facts about one published data set, and how its files are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import h5py
    import pandas as pd

    from backend.data.problems import Refusal
    from backend.data.roles import Roles

__all__ = ["FileForm", "Profile"]


class FileForm(Protocol):
    """How the `.h5ad` of a data set is read where it is not laid out as the data contract says.

    missing : what `--timepoint` and the page call cells without any timepoint
    """

    missing: str

    def recognises(self, file: h5py.Group) -> bool:
        """Say whether columns and words of a file are those of the data set."""

    def roles(self, file: h5py.Group) -> Roles:
        """Return the column of each role, and what the words for timepoints mean."""

    def counts(self, file: h5py.Group) -> str | None:
        """Return the matrix of counts, None to look for it in the usual places."""

    def translate(
        self, read: Callable[[str], pd.Series], roles: Roles, notes: list[str]
    ) -> tuple[Callable[[str], pd.Series], Roles]:
        """Return columns and roles as of a file of the contract; `notes` gets what was changed.

        A role that a person gave another column to is left alone.
        """

    def explain(self, refusal: Refusal, file: h5py.Group, given: Roles | None) -> Refusal:
        """Return a refusal in words of the data set, or as it is where nothing is to be added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One published data set.

    key : short name
    title : what it is called
    accession : what `source` of its datasets contains
    about : what `uns["faultline"]` says of it
    page : its page in docs/
    labelled, classifier : which of its labels a classifier made, and what that classifier is
    sorted_samples : samples that were sorted before sequencing; the store's `is_sorted` knows
        them, so that they are in no composition
    form : how its `.h5ad` is read; None where it meets the data contract
    import_folder : makes an `.h5ad` of a folder of its original files; None where it is one file
    """

    key: str
    title: str
    accession: str
    about: Mapping[str, Any]
    page: str
    labelled: str
    classifier: str
    sorted_samples: tuple[str, ...] = ()
    form: FileForm | None = None
    import_folder: Callable[..., Any] | None = None
