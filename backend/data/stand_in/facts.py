"""What is published of the atlas: numbers of cells by label, timepoint and source.

Ennis S, Conforte A, O'Reilly E, et al. Cell-cell interactome of the hematopoietic niche and its
changes in acute myeloid leukemia. iScience 2023;26(6):106943. doi:10.1016/j.isci.2023.106943.
Counted from the authors' public analysis code and interactive map. No cell of theirs is in here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "CITATION",
    "COMPOSITION",
    "KINDS",
    "NUIG_1_SHARE",
    "SAMPLES",
    "SORTED_TYPES",
    "TP_WORDS",
    "Kind",
    "Origin",
    "tp_of",
]

CITATION: Final = "Ennis et al. 2023, doi:10.1016/j.isci.2023.106943"

TP_WORDS: Final = ("Hea", "Dia", "TRT", "MRD", "Rel")
"""Words of the column `tp`, in the order of `COMPOSITION`."""

COMPOSITION: Final = {
    "HSC.MPP": (8_838, 47_175, 1_781, 928, 16_967),
    "MEP": (3_038, 7_968, 493, 268, 5_837),
    "GMP": (6_991, 19_695, 841, 4_264, 6_576),
    "CLP": (2_598, 901, 108, 274, 379),
    "Pre.B": (1_832, 285, 5, 133, 170),
    "B": (6_698, 1_525, 85, 177, 540),
    "Plasma": (772, 630, 807, 59, 110),
    "CD14.Mono": (13_253, 20_616, 1_626, 14_637, 1_525),
    "CD16.Mono": (2_133, 3_127, 190, 889, 187),
    "cDC": (1_503, 8_951, 170, 827, 1_061),
    "pDC": (1_483, 1_010, 61, 897, 301),
    "Late.Eryth": (7_374, 2_301, 859, 4_235, 4_198),
    "Megakaryocytes": (79, 232, 41, 7, 18),
    "CD4.N": (17_482, 4_824, 3_118, 1_438, 1_115),
    "CD4.M": (17_319, 3_889, 2_263, 961, 1_207),
    "CD8.N": (7_093, 1_552, 576, 40, 107),
    "CD8.M": (10_625, 3_581, 1_199, 1_977, 4_344),
    "NK": (6_304, 1_322, 618, 985, 1_803),
    "Mesenchymal": (30, 42, 11, 12, 5),
}
"""Cells of each `celltype_final` at each word of `tp`, 339,381 in all."""

SORTED_TYPES: Final = ("HSC.MPP", "MEP", "GMP", "CLP", "Pre.B", "pDC")
"""What a sample sorted for CD34 holds."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Cells with one programme of expression.

    cells : of the label `raw` in the atlas; sets the parts of one `final` label
    parent : the kind that it develops from, which stands before it in `KINDS`
    """

    name: str
    raw: str
    final: str
    cells: int
    parent: str
    markers: str
    is_blast: bool = False


def _kind(name: str, final: str, cells: int, parent: str, markers: str, **more: bool) -> Kind:
    return Kind(name, name, final, cells, parent, markers, **more)


KINDS: Final = (
    _kind(
        "HSC", "HSC.MPP", 35_091, "HSC", "CD34 AVP CRHBP HLF SPINK2 MECOM HOPX MLLT3", is_blast=True
    ),
    _kind("CMP.LMPP", "HSC.MPP", 40_725, "HSC", "CD34 CDK6 EGFL7 SOX4 SMIM24 MSI2", is_blast=True),
    _kind("Early.Eryth", "MEP", 15_404, "CMP.LMPP", "GATA1 KLF1 TFRC APOC1 CNRIP1", is_blast=True),
    _kind("Early.Baso", "MEP", 2_434, "CMP.LMPP", "HDC CPA3 CLC MS4A2 GATA2"),
    _kind("GMP", "GMP", 21_522, "CMP.LMPP", "MPO ELANE AZU1 PRTN3 CTSG MS4A3", is_blast=True),
    _kind("GMP.Neut", "GMP", 16_959, "GMP", "ELANE LYZ CSF3R CEBPE LCN2", is_blast=True),
    _kind("CLP.1", "CLP", 3_536, "CMP.LMPP", "DNTT FLT3 LTB ADA IL7R SATB1"),
    _kind("CLP.2", "CLP", 724, "CLP.1", "VPREB1 IGLL1 EBF1 DNTT RAG1"),
    _kind("Pre.B", "Pre.B", 2_430, "CLP.2", "VPREB3 CD24 MME TCL1A PAX5 CD9 RAG2"),
    _kind("B", "B", 9_223, "Pre.B", "MS4A1 CD19 BANK1 CD22 CD79A CD74"),
    _kind("Plasma", "Plasma", 2_394, "B", "MZB1 SDC1 XBP1 JCHAIN DERL3 TNFRSF17"),
    _kind("CD14.Mono.1", "CD14.Mono", 17_029, "GMP", "CD14 FCN1 S100A12 LYZ VCAN", is_blast=True),
    _kind("CD14.Mono.2", "CD14.Mono", 34_807, "CD14.Mono.1", "CD14 MNDA CTSS CSTA", is_blast=True),
    _kind("CD16.Mono", "CD16.Mono", 6_553, "CD14.Mono.2", "FCGR3A MS4A7 CDKN1C LST1"),
    _kind("cDC", "cDC", 12_530, "GMP", "CD1C FCER1A CLEC10A CST3 IRF8", is_blast=True),
    _kind("pDC", "pDC", 3_757, "CLP.1", "IRF7 TCF4 LILRA4 CLEC4C IL3RA GZMB"),
    _kind("Late.Eryth", "Late.Eryth", 29_803, "Early.Eryth", "HBB HBA1 HBA2 ALAS2 GYPA AHSP CA1"),
    # The first labels have no word for these two: they were found among others later. Which is not
    # published, so that the nearest stands here.
    Kind(
        "Megakaryocytes",
        "Early.Eryth",
        "Megakaryocytes",
        377,
        "Early.Eryth",
        "PPBP PF4 ITGA2B GP9 GP1BB",
    ),
    _kind("CD4.N1", "CD4.N", 20_898, "CLP.1", "CD3D CD3E TRAC CD4 CCR7 SELL"),
    _kind("CD4.N2", "CD4.N", 7_485, "CD4.N1", "CD3D CD3E TRAC CD4 LEF1"),
    _kind("CD4.M", "CD4.M", 26_039, "CD4.N1", "CD3D CD3G IL7R LTB CD4 S100A4"),
    _kind("CD8.N", "CD8.N", 9_525, "CD4.N1", "CD3D CD8A CD8B CCR7 LEF1"),
    _kind("CD8.CM", "CD8.M", 16_328, "CD8.N", "CD8A CD8B CCL5 GZMK CST7"),
    _kind("CD8.EM", "CD8.M", 5_617, "CD8.CM", "CD8A NKG7 GZMH FGFBP2 PRF1"),
    _kind("NK", "NK", 11_143, "CD8.EM", "GNLY NKG7 KLRD1 KLRF1 NCAM1 PRF1"),
    Kind("Mesenchymal", "CMP.LMPP", "Mesenchymal", 100, "HSC", "CXCL12 LEPR COL1A1 COL1A2 DCN"),
)


@dataclass(frozen=True, slots=True)
class Origin:
    """A sample before any cell is drawn; `timepoint` is None where the atlas says none."""

    name: str
    donor: str
    dataset: str
    timepoint: str | None
    weight: float
    is_sorted: bool = False


def tp_of(timepoint: str | None) -> str:
    """Return the word of `tp` by the authors' rule; what states none is a healthy sample."""
    words = {"Healthy": "Hea", None: "Hea", "MRD": "MRD", "R": "Rel"}
    words |= dict.fromkeys(("DG", "D0", "Diagnosis"), "Dia")
    return words.get(timepoint, "TRT")


NUIG_1_SHARE: Final = 9_245 / 120_096


def _origins() -> tuple[Origin, ...]:
    """List the samples: cells of each source and timepoint word as published.

    The two are published apart. Only one table fits both: `oetjen` and `granja` are healthy
    throughout, `petti` has the word Diagnosis, `nuig` has DG, MRD and R, `vanG` has the days, and
    its cells without a day are exactly those without a timepoint. Which donor gave which sample
    and its size are invented, in the style of each source; sorted samples have their own names.
    """
    found: list[Origin] = []

    def add(dataset: str, timepoint: str | None, cells: float, *samples: str) -> None:
        """Share cells among samples written `donor:sample`; a mark `*` says that it is sorted."""
        parts = [0.35 if sample.endswith("*") else 1.0 for sample in samples]
        for sample, part in zip(samples, parts, strict=True):
            donor, _, name = sample.rstrip("*").partition(":")
            weight = cells * part / sum(parts)
            found.append(
                Origin(name or donor, donor, dataset, timepoint, weight, sample.endswith("*"))
            )

    # One study in two batches.
    for dataset, share, courses in (
        ("nuig_1", NUIG_1_SHARE, {"P1": "DG MRD R"}),
        (
            "nuig_2",
            1 - NUIG_1_SHARE,
            {
                "D1": "DG MRD R",
                "D2": "DG R",
                "D3": "DG MRD",
                "D4": "DG MRD R",
                "D5": "MRD R",
                "D6": "DG R",
            },
        ),
    ):
        for word, cells in (("DG", 32_839), ("MRD", 36_234), ("R", 51_023)):
            mine = [
                f"{donor}:{donor}_{word}"
                for donor, words in courses.items()
                if word in words.split()
            ]
            add(dataset, word, cells * share, *mine)
    patients = [f"90{number}" for number in range(1001, 1006)]
    add("petti", "Diagnosis", 83_351, *patients)
    sorted_normals = [f"Normal_{day}:Normal_sorted_{day}*" for day in (170531, 170607)]
    add("petti", "Healthy", 18_220, "Normal_170428", *sorted_normals)
    several = {"C": ("C1", "C2", "Ck"), "S": ("S1", "S2", "Sk1", "Sk2")}
    letters = [
        f"{letter}:{name}"
        for letter in "ABCDEFGHIJKLMNOPQRST"
        for name in several.get(letter, (letter,))
    ]
    add("oetjen", "Healthy", 71_843, *letters)
    days = {
        "D14": (1_354, 2, 8), "D15": (1_202, 1), "D18": (1_661, 3), "D20": (945, 4),
        "D29": (1_977, 5, 6), "D31": (1_791, 1, 7), "D34": (202, 8), "D35": (918, 9),
        "D37": (224, 4), "D41": (385, 3), "D49": (53, 10), "D97": (57, 3),
        "D113": (2_732, 5, 3), "D171": (1_401, 5),
    }  # fmt: skip
    add("vanG", "D0", 15_522, *(f"AML9{n:02d}:AML9{n:02d}-D0" for n in range(1, 12)))
    for word, (cells, *donors) in days.items():
        add("vanG", word, cells, *(f"AML9{n:02d}:AML9{n:02d}-{word}" for n in donors))
    add("vanG", None, 7_669, "BM1", "BM2", "BM3", "BM4", "BM5:BM5-34p*", "BM5:BM5-34p38n*")
    bone_marrow = ("D1:BMMC_D1T1", "D1:BMMC_D1T2", "D2:CD34_D2T1*", "D3:CD34_D3T1*")
    add("granja", "Healthy", 20_353, *bone_marrow)
    return tuple(found)


SAMPLES: Final = _origins()
