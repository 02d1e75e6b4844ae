"""A simulated AML course: all four timepoints, two studies, rare types. For tests, scale and tours.

Nothing here is a finding. The cohort only has the shape of one: donors nested in studies, lineages
that lead into each other, malignant `X-like` states that lie further from their normal counterpart
X at each timepoint, clones that differ between patients, and rare CLP and Pre-B cells.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

__all__ = [
    "Cohort",
    "choose_genes",
    "plan_cohort",
    "simulate",
    "simulated_chunks",
    "whole_parts",
    "write_simulated",
]

ABOUT: Final = {
    "name": "Simulated AML course",
    "simulated": True,
    "source": "simulated by Faultline",
    "citation": None,
    "licence_note": "Simulated: for tests, scale and a tour; never a finding.",
    "parent": None,
}

_PARENT: Final = {
    "HSC": "HSC",
    "Prog": "HSC",
    "GMP": "Prog",
    "ProMono": "GMP",
    "Mono": "ProMono",
    "cDC": "ProMono",
    "pDC": "CLP",
    "earlyEry": "Prog",
    "lateEry": "earlyEry",
    "CLP": "Prog",
    "ProB": "CLP",
    "Pre-B": "ProB",
    "B": "Pre-B",
    "Plasma": "B",
    "T": "CLP",
    "CTL": "T",
    "NK": "CTL",
}
"""Each normal type and the one that it develops from; parents of a type come before it is used."""

_MALIGNANT: Final = ("HSC", "Prog", "GMP", "ProMono", "Mono", "cDC")
_TYPES: Final = (*_PARENT, *(f"{name}-like" for name in _MALIGNANT))

_MARKERS: Final = {
    "HSC": "CD34 AVP CRHBP HLF SPINK2 MECOM HOPX MLLT3",
    "Prog": "CD34 CDK6 EGFL7 SOX4 SMIM24 MSI2 ERG",
    "GMP": "MPO ELANE AZU1 PRTN3 CTSG MS4A3 CSF3R",
    "ProMono": "MPO LYZ S100A8 S100A9 CEBPD VCAN RETN",
    "Mono": "CD14 FCN1 S100A12 LYZ VCAN MNDA CTSS",
    "cDC": "CD1C FCER1A CLEC10A CST3 CLEC9A IRF8",
    "pDC": "IRF7 TCF4 LILRA4 CLEC4C IL3RA GZMB",
    "earlyEry": "GATA1 KLF1 TFRC APOC1 CNRIP1 BLVRB",
    "lateEry": "HBB HBA1 HBA2 ALAS2 GYPA AHSP CA1",
    "CLP": "DNTT FLT3 LTB ADA IL7R SATB1",
    "ProB": "VPREB1 IGLL1 CD79B EBF1 DNTT SOX4 RAG1",
    "Pre-B": "VPREB3 CD24 MME TCL1A PAX5 CD9 RAG2",
    "B": "MS4A1 CD19 BANK1 CD22 CD79A CD74",
    "Plasma": "MZB1 SDC1 XBP1 JCHAIN DERL3 TNFRSF17",
    "T": "CD3D CD3E CD3G TRAC LTB IL7R CD27 CCR7",
    "CTL": "CD8A CD8B CCL5 GZMK NKG7 CST7",
    "NK": "GNLY NKG7 KLRD1 KLRF1 NCAM1 PRF1 GZMB",
}

_NORMAL_SHARE: Final = {
    "HSC": 5.0,
    "Prog": 7.0,
    "GMP": 6.0,
    "ProMono": 6.0,
    "Mono": 12.0,
    "cDC": 5.0,
    "pDC": 3.0,
    "earlyEry": 9.0,
    "lateEry": 8.0,
    "CLP": 1.5,
    "ProB": 4.0,
    "Pre-B": 2.0,
    "B": 6.0,
    "Plasma": 3.0,
    "T": 13.0,
    "CTL": 5.0,
    "NK": 4.5,
}
"""Parts per hundred in healthy marrow; CLP and Pre-B stay as rare at every timepoint."""

_RARE: Final = ("CLP", "Pre-B")


@dataclass(frozen=True, slots=True)
class _Course:
    """What a timepoint means: its share of the cells, of malignant cells, and their distance."""

    share: float
    malignant: float
    distance: float
    days: tuple[int, int] | None


_COURSE: Final = {
    "Healthy": _Course(0.25, 0.0, 0.0, None),
    "Diagnosis": _Course(0.30, 0.65, 0.5, (0, 0)),
    "Post-treatment": _Course(0.22, 0.30, 0.9, (14, 90)),
    "Relapse": _Course(0.23, 0.70, 1.4, (180, 900)),
}

_STUDIES: Final = ("A", "B")
_HEALTHY_PER_STUDY: Final = 5
_PATIENTS_PER_STUDY: Final = 10
_PATIENT_COURSES: Final = (
    ("Diagnosis",),
    ("Diagnosis", "Post-treatment"),
    ("Diagnosis", "Relapse"),
    ("Diagnosis", "Post-treatment", "Relapse"),
    ("Post-treatment", "Relapse"),
)
"""Samples of a patient, taken in turn."""

_FADING: Final = 0.55
_DEPTH: Final = 1_500
_CHUNK: Final = 4_096
_FEWEST_GENES: Final = 300
_SHARE_UNLABELLED: Final = 0.01


@dataclass(frozen=True, slots=True)
class _Sample:
    """One sample; `shares` are over `_TYPES`."""

    name: str
    donor: str
    study: str
    timepoint: str
    day: int | None
    n_cells: int
    shares: np.ndarray = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cohort:
    """All that is drawn before the first cell: samples, genes and expression programmes.

    effects : log-expression by what causes it ("base", "type", "study", "donor", "leukaemia",
        "clone"), each name → (n_genes,) float32
    """

    seed: int
    n_cells: int
    genes: tuple[str, ...]
    samples: tuple[_Sample, ...] = field(repr=False)
    effects: dict[str, dict[str, np.ndarray]] = field(repr=False)

    def profiles(self, sample: _Sample) -> np.ndarray:
        """Return (n_types, n_genes) float32 shares of expression in a sample, rows sum to 1."""
        effects = self.effects
        shift = effects["study"][sample.study] + effects["donor"][sample.donor]
        log = np.stack([effects["type"][name.removesuffix("-like")] for name in _TYPES]) + shift
        clone = effects["clone"].get(sample.donor)
        if clone is not None:
            distance = np.float32(_COURSE[sample.timepoint].distance)
            malignant = log[len(_PARENT) :]
            # The further a clone has gone, the less of its lineage's programme is left.
            malignant -= (malignant - shift) * np.float32(_FADING) * distance
            malignant += distance * (effects["leukaemia"]["shared"] + clone)
        profile = np.exp(log + effects["base"]["base"])
        return (profile / profile.sum(axis=1, keepdims=True)).astype(np.float32)


def plan_cohort(n_cells: int, *, seed: int = 0, n_genes: int = 3_000) -> Cohort:
    """Draw the samples and expression programmes of a cohort.

    Raises
    ------
    InputError
        If there are fewer cells than samples, or too few or many genes.
    """
    rng = np.random.default_rng([seed, 0])
    genes = _genes(n_genes)
    samples = _plan_samples(n_cells, rng)
    return Cohort(seed, n_cells, genes, samples, _draw_effects(genes, samples, rng))


def simulated_chunks(
    n_cells: int, *, seed: int = 0, n_genes: int = 3_000
) -> Iterator[tuple[csr_matrix, pd.DataFrame]]:
    """Yield counts (int32) and obs of the cohort piece by piece; memory does not grow with it."""
    cohort = plan_cohort(n_cells, seed=seed, n_genes=n_genes)
    for number, sample in enumerate(cohort.samples):
        profiles = cohort.profiles(sample)
        types = _types_of_cells(sample, np.random.default_rng([seed, 1, number]))
        for start in range(0, sample.n_cells, _CHUNK):
            rng = np.random.default_rng([seed, 2, number, start])
            kinds = types[start : start + _CHUNK]
            yield _counts(profiles, kinds, rng), _obs(sample, kinds, start, rng)


def write_simulated(
    path: str | Path,
    n_cells: int,
    *,
    seed: int = 0,
    n_genes: int = 3_000,
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Write a simulated cohort to `.h5ad`, the same for the same arguments.

    `progress` is called with (cells done, cells in all, what is done).
    """
    from backend.data.writer import H5adWriter

    chunks = simulated_chunks(n_cells, seed=seed, n_genes=n_genes)
    done = 0
    with H5adWriter(path, _gene_frame(_genes(n_genes)), _about(n_cells, seed)) as file:
        for counts, obs in chunks:
            file.append(counts, obs)
            done += len(obs)
            if progress is not None:
                progress(done, n_cells, "cells")


def simulate(n_cells: int, *, seed: int = 0, n_genes: int = 3_000) -> AnnData:
    """Return a simulated cohort in memory, equal to what `load` reads after `write_simulated`."""
    import anndata as ad
    from scipy.sparse import vstack

    from backend.data.layout import add_totals, standard_obs
    from backend.data.roles import guess_roles
    from backend.data.writer import stack_frames

    pieces = list(simulated_chunks(n_cells, seed=seed, n_genes=n_genes))
    counts = vstack([part for part, _ in pieces], format="csr").astype(np.float32)
    raw = stack_frames([obs for _, obs in pieces])
    obs = standard_obs(raw.__getitem__, guess_roles(raw.columns), len(raw), [])
    obs.index = raw.index
    var = _gene_frame(_genes(n_genes))
    about = _about(n_cells, seed)
    return ad.AnnData(counts, obs=add_totals(obs, counts), var=var, uns={"faultline": about})


def _about(n_cells: int, seed: int) -> dict[str, Any]:
    return ABOUT | {"source": f"simulated by Faultline ({n_cells} cells, seed {seed})"}


def _genes(n_genes: int) -> tuple[str, ...]:
    return choose_genes(n_genes, " ".join(_MARKERS.values()))


@lru_cache(maxsize=4)
def choose_genes(n_genes: int, markers: str) -> tuple[str, ...]:
    """Choose the markers and other protein-like current symbols, the same for every seed.

    Raises
    ------
    InputError
        If there are too few or too many genes.
    """
    import re

    from backend.data.genes import gene_table

    named = sorted(set(markers.split()))
    unlikely = re.compile(
        r"[.a-z-]|^(LINC|RN|MIR|SNOR|SCARNA|LOC|IG[HKL]|TR[ABDG]|OR\d|KRTAP|DEFB|GAGE|MAGE)|P\d*$"
    )
    others = sorted(name for name in gene_table().ensembl_of if not unlikely.search(name))
    most = len(others)
    if not _FEWEST_GENES <= n_genes <= most:
        msg = f"Cannot simulate {n_genes:,} genes."
        raise InputError(msg, f"Ask for {_FEWEST_GENES} to {most:,} genes.")
    others = sorted(set(others) - set(named))
    places = np.linspace(0, len(others) - 1, n_genes - len(named)).astype(int)
    return tuple(sorted([*named, *(others[place] for place in places)]))


def _gene_frame(genes: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    from backend.data.genes import gene_table

    ids = gene_table().ensembl_of
    index = pd.Index(genes, name="gene", dtype=object)
    return pd.DataFrame({"ensembl": [ids[name] for name in genes]}, index=index)


def _plan_samples(n_cells: int, rng: np.random.Generator) -> tuple[_Sample, ...]:
    planned: list[tuple[str, str, str, int | None]] = []
    for study in _STUDIES:
        planned += [
            (f"SIM{study}-H{number:02d}", study, "Healthy", None)
            for number in range(1, _HEALTHY_PER_STUDY + 1)
        ]
        for number in range(1, _PATIENTS_PER_STUDY + 1):
            for timepoint in _PATIENT_COURSES[number % len(_PATIENT_COURSES)]:
                first, last = _COURSE[timepoint].days or (0, 0)
                day = int(rng.integers(first, last + 1))
                planned.append((f"SIM{study}-P{number:02d}", study, timepoint, day))
    if n_cells < len(planned):
        msg = f"Cannot spread {n_cells:,} cells over {len(planned)} samples."
        raise InputError(msg, f"Ask for at least {len(planned)} cells.")
    weights = rng.uniform(0.6, 1.4, len(planned))
    timepoints = np.array([timepoint for *_, timepoint, _ in planned])
    for timepoint, course in _COURSE.items():
        mine = timepoints == timepoint
        weights[mine] *= course.share / weights[mine].sum()
    sizes = 1 + whole_parts(weights, n_cells - len(planned))
    return tuple(
        _Sample(
            name=donor if day is None else f"{donor}-D{day}",
            donor=donor,
            study=study,
            timepoint=timepoint,
            day=day,
            n_cells=int(size),
            shares=_type_shares(timepoint, rng),
        )
        for (donor, study, timepoint, day), size in zip(planned, sizes, strict=True)
    )


def _type_shares(timepoint: str, rng: np.random.Generator) -> np.ndarray:
    """Draw the composition of a sample; each patient's clone has its own stage."""
    normal = np.array(list(_NORMAL_SHARE.values())) / sum(_NORMAL_SHARE.values())
    is_rare = np.isin(list(_NORMAL_SHARE), _RARE)
    drawn = np.where(is_rare, normal, normal * rng.gamma(8.0, 1 / 8.0, len(normal)))
    malignant_share = _COURSE[timepoint].malignant * rng.uniform(0.8, 1.2)
    drawn[~is_rare] *= (1 - normal[is_rare].sum() - malignant_share) / drawn[~is_rare].sum()
    malignant = rng.dirichlet(np.full(len(_MALIGNANT), 2.0)) * malignant_share
    return np.concatenate([drawn, malignant])


def whole_parts(shares: np.ndarray, total: int) -> np.ndarray:
    """Split a whole number by shares; the largest remainders get the rest."""
    exact = shares / shares.sum() * total
    parts = np.floor(exact).astype(np.int64)
    rest = np.argsort(parts - exact, kind="stable")[: total - int(parts.sum())]
    parts[rest] += 1
    return parts


def _draw_effects(
    genes: tuple[str, ...], samples: tuple[_Sample, ...], rng: np.random.Generator
) -> dict[str, dict[str, np.ndarray]]:
    n = len(genes)
    place = {gene: position for position, gene in enumerate(genes)}

    def some_genes(share: float, low: float, high: float, *, signed: bool = False) -> np.ndarray:
        size = rng.uniform(low, high, n) * (rng.random(n) < share)
        return (size * rng.choice([-1.0, 1.0], n) if signed else size).astype(np.float32)

    types: dict[str, np.ndarray] = {}
    for name, parent in _PARENT.items():
        inherited = types.get(parent, np.zeros(n, dtype=np.float32)) * np.float32(0.75)
        types[name] = inherited + some_genes(0.04, 0.4, 1.1, signed=True)
        types[name][[place[gene] for gene in _MARKERS[name].split()]] += np.float32(1.7)
    donors = sorted({sample.donor for sample in samples})
    patients = sorted({sample.donor for sample in samples if sample.timepoint != "Healthy"})
    return {
        "base": {"base": rng.normal(0, 1.2, n).astype(np.float32)},
        "type": types,
        "study": {study: rng.normal(0, 0.2, n).astype(np.float32) for study in _STUDIES},
        "donor": {donor: rng.normal(0, 0.15, n).astype(np.float32) for donor in donors},
        "leukaemia": {"shared": some_genes(0.08, 0.5, 1.2, signed=True)},
        "clone": {patient: some_genes(0.08, 0.4, 1.2, signed=True) for patient in patients},
    }


def _types_of_cells(sample: _Sample, rng: np.random.Generator) -> np.ndarray:
    """Give each cell of a sample its type: shares are met as exactly as whole cells allow."""
    chance = sample.shares + 0.5 / sample.n_cells * rng.random(len(sample.shares))
    chance[sample.shares == 0] = 0
    kinds = np.repeat(np.arange(len(_TYPES)), whole_parts(chance, sample.n_cells))
    return rng.permutation(kinds)


def _parent_index() -> np.ndarray:
    place = {name: position for position, name in enumerate(_TYPES)}
    parents = []
    for name in _TYPES:
        parent = _PARENT[name.removesuffix("-like")]
        mate = f"{parent}-like"
        parents.append(place[mate if name.endswith("-like") and mate in place else parent])
    return np.array(parents)


def _counts(profiles: np.ndarray, kinds: np.ndarray, rng: np.random.Generator) -> csr_matrix:
    """Draw counts: each cell lies between its type and the type's parent, nearer to its own."""
    between = rng.beta(1.4, 4.0, len(kinds)).astype(np.float32)[:, None]
    depth = (_DEPTH * rng.lognormal(0, 0.4, len(kinds))).astype(np.float32)[:, None]
    rate = profiles[kinds]
    rate += between * (profiles[_parent_index()[kinds]] - rate)
    rate *= depth
    return _poisson(rate, rng)


def _poisson(rate: np.ndarray, rng: np.random.Generator) -> csr_matrix:
    """Draw Poisson counts by inversion, only where the count is not 0.

    Most rates are far below 1, so that one uniform number per entry settles nearly all of them.
    """
    from scipy.sparse import csr_matrix

    none = np.exp(-rate)
    uniform = rng.random(rate.shape, dtype=np.float32)
    rows, columns = np.nonzero(uniform > none)
    rate, uniform, term = rate[rows, columns], uniform[rows, columns], none[rows, columns]
    counts = np.ones(len(rate), dtype=np.int32)
    is_high = rate > 20
    counts[is_high] = np.maximum(1, rng.poisson(rate[is_high]))
    left = np.flatnonzero(~is_high)
    rate, uniform, term = rate[left], uniform[left], term[left]
    reached = term.copy()
    for k in range(1, 100):
        term = term * rate / np.float32(k)
        reached = reached + term
        goes_on = uniform > reached
        left, rate, uniform = left[goes_on], rate[goes_on], uniform[goes_on]
        term, reached = term[goes_on], reached[goes_on]
        if not len(left):
            break
        counts[left] += 1
    starts = np.searchsorted(rows, np.arange(none.shape[0] + 1))
    return csr_matrix((counts, columns.astype(np.int32), starts), shape=none.shape)


def _obs(sample: _Sample, kinds: np.ndarray, start: int, rng: np.random.Generator) -> pd.DataFrame:
    import pandas as pd

    n = len(kinds)
    is_malignant = kinds >= len(_PARENT)
    labels = np.where(rng.random(n) < _SHARE_UNLABELLED, -1, kinds)
    luck = rng.random(n)
    is_patient = sample.timepoint != "Healthy"
    mutant = luck < np.where(is_malignant, 0.25, 0.01)
    wildtype = ~mutant & (luck < np.where(is_malignant, 0.35, 0.15))
    genotype = np.where(mutant, "mutant", np.where(wildtype, "wildtype_only", "none"))
    is_unclear = is_patient & (rng.random(n) < 0.02)
    name = sample.name

    def same(value: str | None) -> pd.Categorical:
        return pd.Categorical([value] * n, categories=[] if value is None else [value])

    return pd.DataFrame(
        {
            "cell_type_fine": pd.Categorical.from_codes(labels, categories=list(_TYPES)),
            "timepoint": same(sample.timepoint),
            "donor": same(sample.donor),
            "study": same(f"Simulated study {sample.study}"),
            "sample": same(name),
            "day": pd.array([sample.day] * n, dtype="Int32"),
            "label_source": same("expert" if is_patient else "clustering"),
            "genotype": pd.Categorical(genotype if is_patient else ["none"] * n),
            "is_malignant": pd.arrays.BooleanArray(is_malignant, is_unclear),
        },
        index=pd.Index(
            [f"{name}_{number:06d}" for number in range(start + 1, start + n + 1)], name="cell_id"
        ),
    )
