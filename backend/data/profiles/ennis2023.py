"""Profile of the AML atlas of Ennis et al. 2023, in its authors' form and that of CELLxGENE.

Five studies in one file. What each column and word means is in docs/profile-ennis2023.md.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import h5py
import numpy as np
import pandas as pd

from backend.data.categories import as_text, constant, map_words
from backend.data.columns import column_names, read_column
from backend.data.problems import Refusal, some
from backend.data.profiles.base import Profile
from backend.data.roles import Roles, guess_roles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ENNIS2023", "LABELS_FINAL", "LABELS_RAW", "STUDIES"]

STUDIES: Final = {
    # The authors sequenced two batches: one study.
    "nuig_1": "Ennis 2023",
    "nuig_2": "Ennis 2023",
    "petti": "Petti 2019",
    "oetjen": "Oetjen 2018",
    "vanG": "van Galen 2019",
    "granja": "Granja 2019",
}
"""Word of the column `dataset` → study."""

LABELS_RAW: Final = (
    "HSC", "CMP.LMPP", "GMP", "GMP.Neut", "CLP.1", "CLP.2", "Early.Baso", "Early.Eryth",
    "Late.Eryth", "CD14.Mono.1", "CD14.Mono.2", "CD16.Mono", "cDC", "pDC", "Pre.B", "B", "Plasma",
    "CD4.N1", "CD4.N2", "CD4.M", "CD8.N", "CD8.CM", "CD8.EM", "NK",
)  # fmt: skip
"""Labels of `celltype`, before the authors corrected them on clusters."""
LABELS_FINAL: Final = (
    "HSC.MPP", "MEP", "GMP", "CLP", "Late.Eryth", "Megakaryocytes", "CD14.Mono", "CD16.Mono",
    "cDC", "pDC", "Pre.B", "B", "Plasma", "CD4.N", "CD4.M", "CD8.N", "CD8.M", "NK", "Mesenchymal",
)  # fmt: skip
"""Labels of `celltype_final`."""

_KNOWN_SHARE: Final = 0.8
_REFERENCE: Final = "Granja 2019"
_OWN_NAMES: Final = "van Galen 2019"
_WORDS: Final = {
    "healthy": "Healthy",
    "hea": "Healthy",
    "diagnosis": "Diagnosis",
    "dg": "Diagnosis",
    "d0": "Diagnosis",
    "dia": "Diagnosis",
    "r": "Relapse",
    "rel": "Relapse",
    "relapse": "Relapse",
    "mrd": "Post-treatment",
    "trt": "Post-treatment",
}
_DAY: Final = re.compile(r"[Dd](\d{1,4})")
_SORTED: Final = {
    "CD34_D2T1": "CD34+",
    "CD34_D3T1": "CD34+",
    "Normal_sorted_170531": "sorted",
    "Normal_sorted_170607": "sorted",
    "BM5-34p": "34p",
    "BM5-34p38n": "34p38n",
}
_MISSING: Final = "missing"

_OF: Final = {
    "cell_type": ("celltype_final", "celltype", "author_cell_type", "cell_type"),
    "donor": ("donor", "donor_id"),
    "timepoint": ("tp", "timepoint", "disease"),
    "study": ("dataset",),
    "sample": ("sample",),
}
"""Role → the file's columns for it, the best first."""
_CELLXGENE: Final = frozenset(["cell_type", "disease", "donor_id", "tissue"])
_TITLE: Final = "hematopoietic niche"
_DOI: Final = "10.1016/j.isci.2023.106943"


class _Atlas:
    """See `FileForm`."""

    missing = _MISSING

    def recognises(self, file: h5py.Group) -> bool:
        columns = set(column_names(file, "obs"))
        labels = next((name for name in _OF["cell_type"][:3] if name in columns), None)
        if "dataset" in columns and labels and columns & {"donor", "donor_id"}:
            sources = _words(file, "dataset")
            if sources and sources <= STUDIES.keys():
                found = _words(file, labels)
                known = found & {*LABELS_RAW, *LABELS_FINAL}
                return bool(found) and len(known) >= _KNOWN_SHARE * len(found)
        return columns >= _CELLXGENE and (
            _TITLE in _told(file, "title").casefold() or _DOI in _told(file, "citation").casefold()
        )

    def roles(self, file: h5py.Group) -> Roles:
        columns = column_names(file, "obs")
        own: dict[str, Any] = {}
        for role, names in _OF.items():
            own[role] = next((name for name in names if name in columns), None)
        words: dict[str, str] = {}
        if own["timepoint"] is not None:
            for word in _words(file, own["timepoint"]):
                if (timepoint := _timepoint(word, own["timepoint"])) is not None:
                    words[word] = timepoint
        given = Roles(**{role: column for role, column in own.items() if column})
        # CELLxGENE's `disease` is no stage: where it stands in, its words for illness are asked for.
        return replace(given.over(guess_roles(columns)), timepoints=words)

    def counts(self, file: h5py.Group) -> str | None:
        # `X` is normalised, so the layer is taken even where both look like counts.
        return "layers/counts" if "layers/counts" in file else None

    def translate(
        self, read: Callable[[str], pd.Series], roles: Roles, notes: list[str]
    ) -> tuple[Callable[[str], pd.Series], Roles]:
        def text(role: str) -> pd.Categorical | None:
            column = getattr(roles, role)
            return as_text(read(column)) if column in _OF[role] else None

        made: dict[str, pd.Categorical | pd.Series] = {}
        source = text("study")
        study = None if source is None else map_words(source, lambda word: STUDIES.get(word, word))
        if study is not None:
            made["study"] = study
        donor, sample, when = text("donor"), text("sample"), text("timepoint")
        if donor is not None and study is not None:
            made["donor"] = _unique(donor, study, notes)
        raw = _maybe(read, "timepoint")
        if when is not None:
            made["timepoint"] = _timepoints(when, raw, sample, study, roles, notes)
        if roles.day is None and raw is not None:
            made["day"] = map_words(raw, _day)
        if roles.sort is None and sample is not None:
            made["sort"] = map_words(sample, _SORTED.get)
            _note_sorted(made["sort"], sample, notes)
        if roles.label_source is None:
            made["label_source"] = _label_sources(study, made.get("timepoint"), read, roles)
            notes.append(
                "Labels are calls of SingleR with a healthy reference, corrected on clusters: "
                f"label_source = classifier (clustering for {_REFERENCE}, the reference itself). "
                "They name no malignant state."
            )
        derived = {f"{role} of ennis2023": values for role, values in made.items()}

        def read_both(name: str) -> pd.Series:
            return pd.Series(derived[name], name=name) if name in derived else read(name)

        return read_both, replace(roles, **{role: f"{role} of ennis2023" for role in made})  # type: ignore[arg-type]

    def explain(self, refusal: Refusal, file: h5py.Group, given: Roles | None) -> Refusal:
        columns = column_names(file, "obs")
        asked = given.columns() if given is not None else {}
        if asked.get("cell_type") == "celltype_final" and "celltype_final" not in columns:
            msg = (
                f"The file is the atlas before its labels were cleaned: `celltype` holds its "
                f"{len(LABELS_RAW)} labels, and `celltype_final` with the {len(LABELS_FINAL)} is missing."
            )
            hint = (
                f"Take the {len(LABELS_RAW)} (--role cell_type=celltype), or get the authors' later "
                "file. One set cannot be made of the other: the authors relabelled whole clusters, "
                "and Megakaryocytes and Mesenchymal are in the later one only."
            )
            return Refusal(msg, hint, code="stage")
        is_counts = refusal.code in ("no_counts", "log_normalised", "not_counts", "negative")
        if not is_counts or (given is not None and given.counts):
            return refusal
        place = 'layers["counts"]'
        what = "lacks it" if "layers/counts" not in file else "holds other values there"
        msg = (
            f"`X` of this atlas is normalised (scran size factors, then log1p); its counts are in "
            f"`{place}`, and the file {what}. {refusal.problem.message}"
        )
        hint = (
            f"Get the authors' file with `{place}` (Zenodo record 5931689), or CELLxGENE's with "
            "`raw.X`: programs that save `X` alone leave the counts out, and they cannot be "
            "computed back."
        )
        return Refusal(msg, hint, code=refusal.code)


def _words(file: h5py.Group, column: str) -> set[str]:
    """Return the words of a column that occur, none of a column that holds no text."""
    try:
        values = read_column(file, "obs", column)
    except Refusal:
        return set()
    return set(as_text(values).categories) if str(values.dtype) == "category" else set()


def _told(file: h5py.Group, name: str) -> str:
    """Return a text that the file tells of itself in `uns`."""
    node = file.get(f"uns/{name}")
    if not isinstance(node, h5py.Dataset) or node.shape != () or node.dtype.kind not in "OS":
        return ""
    value = node[()]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _maybe(read: Callable[[str], pd.Series], name: str) -> pd.Categorical | None:
    try:
        return as_text(read(name))
    except Refusal:
        return None


def _timepoint(word: str, column: str = "timepoint") -> str | None:
    """Return what a word means by the authors' rule; a day after the first is after treatment.

    The authors take every other word for post-treatment as well; here an unknown word is asked for.
    """
    if column == "disease":
        return "Healthy" if word.casefold() in ("normal", "healthy") else None
    return _WORDS.get(word.casefold()) or ("Post-treatment" if _DAY.fullmatch(word) else None)


def _day(word: str) -> str | None:
    match = _DAY.fullmatch(word)
    return match[1] if match else None


def _unique(donor: pd.Categorical, study: pd.Categorical, notes: list[str]) -> pd.Categorical:
    """Put the study before a donor's name, but van Galen's: these are the names of their paper."""
    pairs = pd.DataFrame({"donor": donor.codes, "study": study.codes})
    pairs = pairs.drop_duplicates().query("donor >= 0")
    n_shared = len(set(pairs.loc[pairs["donor"].duplicated(), "donor"]))
    width = len(study.categories) + 1
    codes = np.where(donor.codes < 0, -1, donor.codes.astype(np.int64) * width + study.codes + 1)
    names: dict[int, str] = {}
    for one, where in pairs.itertuples(index=False):
        name = str(donor.categories[one])
        prefix = str(study.categories[where]) if where >= 0 else ""
        is_plain = prefix in ("", _OWN_NAMES)
        names[int(one) * width + int(where) + 1] = name if is_plain else f"{prefix} {name}"
    known = sorted(names)
    found = pd.Index(known).get_indexer(pd.Index(codes))
    listed = pd.Categorical.from_codes(found, categories=[str(code) for code in known])
    shared = f" (names in more than one study: {n_shared})" if n_shared else ""
    notes.append(f"Donors are named with their study{shared}.")
    return map_words(listed, lambda code: names[int(code)])


def _timepoints(
    when: pd.Categorical,
    raw: pd.Categorical | None,
    sample: pd.Categorical | None,
    study: pd.Categorical | None,
    roles: Roles,
    notes: list[str],
) -> pd.Categorical:
    """Return clinical timepoints; unknown words stay, cells without a word get what was said."""
    column = str(roles.timepoint)
    said = {word: t for word, t in roles.timepoints.items() if _timepoint(word, column) != t}
    result = map_words(when, lambda w: said.get(w) or _timepoint(w, column) or w).astype(object)
    if raw is not None and column != "timepoint":
        # The earlier column says more: what a person says of its words wins, and it fills gaps.
        of_raw = map_words(raw, lambda w: said.get(w) or _timepoint(w)).astype(object)
        is_said = np.isin(raw.codes, [n for n, w in enumerate(raw.categories) if w in said])
        use = (is_said | pd.isna(result)) & ~pd.isna(of_raw)
        result = np.where(use, of_raw, result)
    gaps = pd.isna(result)
    if gaps.any() and sample is not None:
        words = {str(name): said.get(str(name), said.get(_MISSING)) for name in sample.categories}
        filled = np.asarray(map_words(sample, words.get).astype(object))
        result = np.where(gaps, filled, result)
    elif gaps.any() and _MISSING in said:
        result = np.where(gaps, said[_MISSING], result)
    _note_gaps(gaps, result, sample, study, notes)
    return pd.Categorical(result)


def _note_gaps(
    gaps: np.ndarray,
    result: np.ndarray,
    sample: pd.Categorical | None,
    study: pd.Categorical | None,
    notes: list[str],
) -> None:
    left = pd.isna(result)
    if n_filled := int((gaps & ~left).sum()):
        notes.append(f"{n_filled:,} cells without a timepoint have the one that you said.")
    if not left.any():
        return
    listed = ""
    if sample is not None:
        names = pd.Series(sample.astype(object)[left]).fillna("no sample")
        if study is not None:
            where = pd.Series(study.astype(object)[left]).fillna("no study")
            names = names + " (" + where + ")"
        counts = names.value_counts()
        listed = f": {some(f'{name} {n:,}' for name, n in counts.items())}"
    notes.append(
        f"{int(left.sum()):,} cells have no timepoint, and none is guessed{listed}. Say what they "
        f'are: --timepoint "SAMPLE=Healthy" for one sample, --timepoint "{_MISSING}=Healthy" for all.'
    )


def _note_sorted(
    sort: pd.Categorical | pd.Series, sample: pd.Categorical, notes: list[str]
) -> None:
    is_sorted = ~pd.isna(sort)
    if n := int(is_sorted.sum()):
        names = set(sample.astype(object)[is_sorted])
        notes.append(
            f"{n:,} cells are of samples that were sorted before sequencing ({some(names, 6)}): "
            "they are in no composition."
        )


def _label_sources(
    study: pd.Categorical | None,
    timepoint: pd.Categorical | pd.Series | None,
    read: Callable[[str], pd.Series],
    roles: Roles,
) -> pd.Categorical:
    """Return who labelled each cell. Without studies the reference hides among healthy cells."""
    kinds: Mapping[str, str]
    if study is not None:
        kinds = {_REFERENCE: "clustering"}
        return map_words(study, lambda name: kinds.get(name, "classifier"))
    if timepoint is not None:
        kinds = {"Healthy": "unknown"}
        known = pd.Categorical(pd.Series(timepoint).astype(object).fillna("no word"))
        return map_words(known, lambda name: kinds.get(name, "classifier"))
    return constant("unknown", len(read(str(roles.cell_type or roles.donor))))


ENNIS2023: Final = Profile(
    key="ennis2023",
    title="Ennis et al. 2023",
    accession="Zenodo 5931689",
    about={
        "name": "Ennis 2023",
        "simulated": False,
        "source": "Zenodo 5931689",
        "citation": (
            "Ennis S, Conforte A, O'Reilly E, et al. Cell-cell interactome of the hematopoietic "
            "niche and its changes in acute myeloid leukemia. iScience 2023;26(6):106943. "
            "doi:10.1016/j.isci.2023.106943"
        ),
        "licence_note": "See the authors' record for the licence; cite the paper.",
        "parent": None,
    },
    page="profile-ennis2023.md",
    labelled="Labels of all studies but Granja 2019",
    classifier="SingleR with a healthy reference",
    sorted_samples=tuple(_SORTED),
    form=_Atlas(),
)
