"""Read van Galen et al. 2019 (GEO GSE116256) from the files that GEO offers.

Each sample is a pair `…_<sample>.dem.txt.gz` (genes × cells, UMI counts as text) and
`…_<sample>.anno.txt.gz` (one row per cell). The two are paired by the name of the sample: their GSM
numbers differ.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backend.data.geo_counts import read_counts, reading
from backend.data.labels import to_lineage
from backend.data.problems import some
from backend.data.roles import map_timepoint
from backend.data.writer import H5adWriter
from backend.errors import InputError
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

__all__ = ["ABOUT", "GeoFolder", "GeoReport", "import_geo", "read_clinical", "scan_folder"]

ABOUT: Final = {
    "name": "van Galen 2019",
    "simulated": False,
    "source": "GEO GSE116256",
    "citation": (
        "van Galen P, Hovestadt V, Wadsworth MH, et al. Single-cell RNA-seq reveals AML "
        "hierarchies relevant to disease progression and immunity. Cell 2019;176:1265-1281. "
        "doi:10.1016/j.cell.2019.01.031"
    ),
    "licence_note": "GEO states no licence for these files; cite the paper.",
    "parent": None,
}

_FILE: Final = re.compile(r"^(?:GSM\d+_)?(?P<sample>.+)\.(?P<kind>dem|anno)\.txt(?:\.gz)?$")
_SAMPLE: Final = re.compile(r"(?:AML\d+[A-Z]?-D\d{1,5}|BM\d+(?:-\S+)?)", re.ASCII)
_CELL_LINES: Final = ("MUTZ3", "OCI-AML3")
_NANOPORE: Final = re.compile(r"^(?:GSM\d+_)?(?P<sample>.+)\.nanopore\.txt(?:\.gz)?$")
_CLINICAL_HINT: Final = (
    "Give a CSV file in UTF-8, split by commas, with sample,timepoint in its first line."
)
_ANNOTATION: Final = ("Cell", "CellType")
_ANNOTATION_OPTIONAL: Final = ("PredictionRefined", "MutTranscripts", "WtTranscripts")


@dataclass(frozen=True, slots=True)
class GeoFolder:
    """What a folder holds.

    pairs : sample → (counts file, annotation file), in the order of the sample names
    without_counts, without_annotation : samples with one file only
    skipped : sample names that do not follow the naming of this study
    nanopore : samples with a file of mutation calls
    other_files : files that are none of these
    """

    pairs: Mapping[str, tuple[Path, Path]]
    without_counts: tuple[str, ...] = ()
    without_annotation: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    nanopore: tuple[str, ...] = ()
    other_files: tuple[str, ...] = ()

    @property
    def left_out(self) -> dict[str, str]:
        """Name → why it is not read, for samples and files that look like this study's."""
        reasons = dict.fromkeys(self.without_counts, "annotation without counts (.dem.txt.gz)")
        reasons |= dict.fromkeys(
            self.without_annotation, "counts without annotation (.anno.txt.gz)"
        )
        for sample in self.skipped:
            is_line = sample in _CELL_LINES
            reasons[sample] = (
                "a cell line, not a patient" if is_line else "not a sample name of GSE116256"
            )
        reasons |= {
            f"{sample}.nanopore": "mutation calls by nanopore sequencing, no counts"
            for sample in self.nanopore
        }
        return reasons

    @property
    def left_out_by_reason(self) -> dict[str, list[str]]:
        """Why something is not read → the names that it holds for."""
        names: dict[str, list[str]] = {}
        for name, why in self.left_out.items():
            names.setdefault(why, []).append(name)
        return names


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoReport:
    """What `import_geo` did."""

    n_cells: int
    n_genes: int
    samples: tuple[str, ...]
    n_unlabelled: int
    n_cells_without_annotation: int
    n_annotations_without_cell: int
    folder: GeoFolder = field(repr=False)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return {
            "n_cells": self.n_cells,
            "n_genes": self.n_genes,
            "n_samples": len(self.samples),
            "samples": list(self.samples),
            "n_unlabelled": self.n_unlabelled,
            "n_cells_without_annotation": self.n_cells_without_annotation,
            "n_annotations_without_cell": self.n_annotations_without_cell,
            "without_counts": list(self.folder.without_counts),
            "without_annotation": list(self.folder.without_annotation),
            "skipped": list(self.folder.skipped),
            "left_out": self.folder.left_out,
            "other_files": list(self.folder.other_files),
            "notes": list(self.notes),
        }


def scan_folder(folder: str | Path) -> GeoFolder:
    """Pair the files of a folder by sample name.

    Raises
    ------
    InputError
        If the folder is missing, two files claim the same part of a sample, or no sample has
        both counts and annotation.
    """
    folder = Path(folder)
    if not folder.is_dir():
        msg = f'"{folder}" is not a folder.'
        raise InputError(msg, "Give the folder that holds the files of GSE116256.")
    found: dict[str, dict[str, Path]] = {"dem": {}, "anno": {}}
    skipped, nanopore, other = set(), set(), []
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        msg = f'The folder "{folder}" cannot be read ({error.strerror}).'
        raise InputError(msg, "Give yourself the right to read it, or copy its files.") from error
    for path in paths:
        match = _FILE.match(path.name)
        if (calls := _NANOPORE.match(path.name)) is not None:
            nanopore.add(calls["sample"])
            continue
        if match is None or not path.is_file():
            other.append(path.name)
            continue
        sample, kind = match["sample"], match["kind"]
        if not _SAMPLE.fullmatch(sample):
            skipped.add(sample)
            continue
        if sample in found[kind]:
            msg = (
                f'Two files hold the same part of sample "{sample}": '
                f'"{found[kind][sample].name}" and "{path.name}".'
            )
            raise InputError(msg, "Keep one of them.")
        found[kind][sample] = path
    counts, annotation = found["dem"], found["anno"]
    result = GeoFolder(
        pairs={s: (counts[s], annotation[s]) for s in sorted(counts.keys() & annotation.keys())},
        without_counts=tuple(sorted(annotation.keys() - counts.keys())),
        without_annotation=tuple(sorted(counts.keys() - annotation.keys())),
        skipped=tuple(sorted(skipped)),
        nanopore=tuple(sorted(nanopore)),
        other_files=tuple(other),
    )
    if not result.pairs:
        _refuse_folder(folder, result)
    return result


def _refuse_folder(folder: Path, found: GeoFolder) -> None:
    named = [f"{why}: {some(names)}" for why, names in found.left_out_by_reason.items()]
    if found.other_files:
        named.append(f"other files: {some(found.other_files)}")
    msg = (
        f'"{folder}" holds no sample of GSE116256 with counts and annotation. '
        f"Found: {'; '.join(named) or 'nothing'}."
    )
    if found.without_counts or found.without_annotation:
        hint = "Download the missing one of the two files of a sample from GEO (GSE116256)."
    else:
        hint = (
            "Files must be named like GSM3587925_AML210A-D0.dem.txt.gz and "
            "GSM3587926_AML210A-D0.anno.txt.gz."
        )
    raise InputError(msg, hint)


def read_clinical(path: str | Path) -> dict[str, str]:
    """Read `sample,timepoint` rows; timepoints are the clinical ones of this project.

    Words that mean a timepoint, such as "relapsed" or "Dx", are taken for it.

    Raises
    ------
    InputError
        If a column or a value is missing, a sample is named twice or a timepoint is unknown.
    """
    path = Path(path)
    if not path.is_file():
        msg = f'There is no file "{path}".'
        raise InputError(msg, _CLINICAL_HINT)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head, *rows = list(csv.reader(file, skipinitialspace=True, strict=True)) or [[]]
    except OSError as error:
        msg = f'"{path.name}" cannot be read ({error.strerror}).'
        raise InputError(msg, "Give yourself the right to read it.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        msg = f'"{path.name}" is not a CSV table ({error}).'
        raise InputError(msg, _CLINICAL_HINT) from error
    names = [name.strip().casefold() for name in head]
    for name in ("sample", "timepoint"):
        if names.count(name) != 1:
            msg = (
                f'"{path.name}" must have one column {name}, but has {names.count(name)}. '
                f"Found: {some(head) or 'nothing'}."
            )
            raise InputError(msg, _CLINICAL_HINT)
    timepoints: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        if not any(value.strip() for value in row):
            continue
        values = dict(zip(names, (value.strip() for value in row), strict=False))
        where = f'Line {line} of "{path.name}"'
        if len(row) != len(names) or not values["sample"] or not values["timepoint"]:
            msg = f"{where} does not give one sample and its timepoint. Found: {','.join(row)}."
            raise InputError(msg, "Complete the row, or leave it out: the name decides then.")
        if values["sample"] in timepoints:
            msg = f'{where} names the sample "{values["sample"]}", which stands twice in the table.'
            raise InputError(msg, "Keep one row per sample.")
        timepoint = map_timepoint(values["timepoint"])
        if timepoint is None:
            msg = f'{where} has the unknown timepoint "{values["timepoint"]}".'
            raise InputError(msg, f"Use one of: {', '.join(TIMEPOINTS)}.")
        timepoints[values["sample"]] = timepoint
    return timepoints


def import_geo(
    folder: str | Path,
    out: str | Path,
    *,
    clinical: Mapping[str, str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> GeoReport:
    """Write the samples of a folder to one `.h5ad` with all genes and whole counts.

    Parameters
    ----------
    folder
        Files as downloaded from GEO.
    out
        The file to write; it appears only when everything was read.
    clinical
        Timepoint by sample. It overrides what the name says and is the only way to Relapse.
    progress
        Called with (samples done, samples in all, sample).

    Raises
    ------
    InputError
        If no sample is usable, or a file is damaged. Nothing is written then.
    """
    import pandas as pd

    found = scan_folder(folder)
    clinical = clinical or {}
    notes = []
    if known := [f"{s} {timepoint}" for s, timepoint in clinical.items() if s in found.pairs]:
        notes.append(f"Timepoints by the clinical table: {some(known, len(known))}.")
    if strange := set(clinical) - set(found.pairs):
        notes.append(f"The clinical table names samples that are not here: {some(strange)}.")
    genes: list[str] | None = None
    n_cells = n_unlabelled = 0
    bare: dict[str, int] = {}
    lost: dict[str, int] = {}
    pieces = []
    for done, (sample, (counts_path, annotation_path)) in enumerate(found.pairs.items()):
        if progress is not None:
            progress(done, len(found.pairs), sample)
        cell_ids, sample_genes, counts = read_counts(counts_path)
        if genes is None:
            genes = sample_genes
        elif genes != sample_genes:
            msg = (
                f'"{counts_path.name}" has other genes than the samples before it '
                f"({len(sample_genes):,} against {len(genes):,}, or in another order)."
            )
            raise InputError(msg, "Use the files of one release of GSE116256.")
        table = _read_annotation(annotation_path)
        bare[sample] = int((~np.isin(cell_ids, table.index.to_numpy())).sum())
        lost[sample] = int((~np.isin(table.index.to_numpy(), cell_ids)).sum())
        if bare[sample] == len(cell_ids):
            msg = (
                f'None of the {len(cell_ids):,} cells of "{counts_path.name}" is among the '
                f'{len(table):,} of "{annotation_path.name}". Found: {some(cell_ids[:3])} '
                f"against {some(table.index[:3]) or 'no cell'}."
            )
            raise InputError(msg, "Use the two files of one sample as they are on GEO.")
        obs = _sample_obs(sample, cell_ids, table.reindex(cell_ids), clinical.get(sample))
        obs.insert(1, "cell_type_lineage", _lineages(obs["cell_type_fine"]))
        obs["n_counts"] = np.asarray(counts.sum(axis=1), dtype=np.float32).ravel()
        obs["n_genes"] = counts.getnnz(axis=1).astype(np.int32)
        n_unlabelled += int(obs["cell_type_fine"].isna().sum())
        n_cells += len(obs)
        pieces.append((counts, obs))
    if progress is not None:
        progress(len(found.pairs), len(found.pairs), "writing")
    ids = pd.Index(np.concatenate([obs.index.to_numpy() for _, obs in pieces]))
    if not ids.is_unique:
        repeated = sorted(set(ids[ids.duplicated()]))
        msg = f"Cell ids occur more than once: {some(repeated)}."
        raise InputError(msg, "Keep each sample once.")
    for counted, what in (
        (bare, "Cells with counts but without annotation, kept without label"),
        (lost, "Annotated cells without counts, left out"),
    ):
        if where := [f"{sample} {n:,}" for sample, n in counted.items() if n]:
            notes.append(f"{what}: {sum(counted.values()):,} ({some(where)}).")
    assert genes is not None
    with H5adWriter(out, _gene_table(genes), ABOUT) as file:
        for counts, obs in pieces:
            file.append(counts, obs)
    return GeoReport(
        n_cells=n_cells,
        n_genes=len(genes),
        samples=tuple(found.pairs),
        n_unlabelled=n_unlabelled,
        n_cells_without_annotation=sum(bare.values()),
        n_annotations_without_cell=sum(lost.values()),
        folder=found,
        notes=tuple(notes),
    )


def _read_annotation(path: Path) -> pd.DataFrame:
    """Read one annotation file as text, indexed by cell."""
    import pandas as pd

    try:
        with reading(path) as file:
            text = TextIOWrapper(file, encoding="utf-8-sig", newline="")
            rows = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
            names = next(rows, [])
            wanted = _annotation_places(names, path)
            cells = []
            for line, row in enumerate(rows, start=2):
                if row and len(row) != len(names):
                    msg = (
                        f'Line {line:,} of "{path.name}" has {len(row)} values, but there are '
                        f"{len(names)} columns."
                    )
                    raise InputError(msg, "The file may be cut off: download it again from GEO.")
                if row:
                    cells.append([row[place] for place in wanted.values()])
    except (csv.Error, UnicodeDecodeError) as error:
        msg = f'"{path.name}" cannot be read as a table ({error}).'
        raise InputError(msg, "Download it again from GEO.") from error
    table = pd.DataFrame(cells, columns=list(wanted), dtype=object)
    if table["Cell"].duplicated().any():
        repeated = set(table["Cell"][table["Cell"].duplicated()])
        msg = f'"{path.name}" describes cells twice: {some(repeated)}.'
        raise InputError(msg, "Keep one row per cell.")
    for name in _ANNOTATION_OPTIONAL:
        if name not in table.columns:
            table[name] = ""
    return table.set_index("Cell")


def _annotation_places(names: list[str], path: Path) -> dict[str, int]:
    """Return where the columns that are read stand; refuse a header without them."""
    missing = [name for name in _ANNOTATION if name not in names]
    if missing:
        msg = (
            f'"{path.name}" lacks the columns {", ".join(missing)}. '
            f"Found: {some(names) or 'nothing'}."
        )
        raise InputError(msg, "Use the .anno.txt.gz files of GSE116256 as they are on GEO.")
    read = [name for name in _ANNOTATION + _ANNOTATION_OPTIONAL if name in names]
    if doubled := [name for name in read if names.count(name) > 1]:
        msg = f'"{path.name}" names a column twice: {some(doubled)}.'
        raise InputError(msg, "Use the .anno.txt.gz files of GSE116256 as they are on GEO.")
    return {name: names.index(name) for name in read}


def _sample_obs(
    sample: str, cell_ids: np.ndarray, table: pd.DataFrame, timepoint: str | None
) -> pd.DataFrame:
    """Build the obs columns of one sample; `table` is the annotation in the order of the cells."""
    import pandas as pd

    table = table.fillna("")
    donor, _, remainder = sample.partition("-")
    is_healthy = sample.startswith("BM")
    day = None if is_healthy else int(remainder[1:])
    if timepoint is None:
        timepoint = "Healthy" if is_healthy else "Diagnosis" if day == 0 else "Post-treatment"
    n = len(cell_ids)
    labels = table["CellType"].str.strip()
    malignancy = table["PredictionRefined"].str.strip().map({"malignant": True, "normal": False})
    genotype = np.where(
        table["MutTranscripts"].str.strip() != "",
        "mutant",
        np.where(table["WtTranscripts"].str.strip() != "", "wildtype_only", "none"),
    )
    return pd.DataFrame(
        {
            "cell_type_fine": pd.Categorical(labels.where(labels != "", None)),
            "timepoint": pd.Categorical([timepoint] * n),
            "donor": pd.Categorical([donor] * n),
            "study": pd.Categorical(["van Galen 2019"] * n),
            "sample": pd.Categorical([sample] * n),
            "sort": pd.Categorical([remainder or None if is_healthy else None] * n),
            "day": pd.array([day] * n, dtype="Int32"),
            "label_source": pd.Categorical(["clustering" if is_healthy else "classifier"] * n),
            "genotype": pd.Categorical(genotype),
            "is_malignant": pd.array(
                [False] * n
                if is_healthy
                else malignancy.astype(object).where(malignancy.notna(), None),
                dtype="boolean",
            ),
        },
        index=pd.Index(cell_ids, name="cell_id"),
    )


def _lineages(fine: pd.Series) -> pd.Categorical:
    """Return the lineage of each label. A sample may have no label at all (BM5-34p38n in part)."""
    import pandas as pd

    lineages = [to_lineage(label) for label in fine.cat.categories]
    names = sorted(set(lineages))
    position = {name: code for code, name in enumerate(names)}
    codes = np.array([*(position[name] for name in lineages), -1], dtype=np.int64)
    return pd.Categorical.from_codes(
        codes[fine.cat.codes.to_numpy()], categories=pd.Index(names, dtype=object)
    )


def _gene_table(genes: list[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(index=pd.Index(genes, name="gene", dtype=object))
