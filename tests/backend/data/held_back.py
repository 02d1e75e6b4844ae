"""Labels of published vocabularies that are not in the table, with the type that each means.

None: a type that we do not have, or one that may only be offered. Two types: either is right. Written
down before the rules were tried on them: then 101 of 119 were found, and one was wrong.
"""

from __future__ import annotations

from typing import Final

HELD_BACK: Final[dict[str, dict[str, str | None]]] = {
    "Monaco 2019 (SingleR)": {
        "Naive CD8 T cells": "T", "Central memory CD8 T cells": "T",
        "Effector memory CD8 T cells": "T|CTL", "Terminal effector CD8 T cells": "CTL",
        "MAIT cells": "T", "Vd2 gd T cells": "T", "Non-Vd2 gd T cells": "T",
        "Follicular helper T cells": "T", "T regulatory cells": "T", "Th1 cells": "T",
        "Th1/Th17 cells": "T", "Th17 cells": "T", "Th2 cells": "T", "Naive CD4 T cells": "T",
        "Terminal effector CD4 T cells": "T", "Progenitor cells": "Prog", "Naive B cells": "B",
        "Non-switched memory B cells": "B", "Exhausted B cells": "B",
        "Switched memory B cells": "B", "Plasmablasts": None, "Classical monocytes": "Mono",
        "Intermediate monocytes": "Mono", "Non classical monocytes": "Mono",
        "Natural killer cells": "NK", "Plasmacytoid dendritic cells": "pDC",
        "Myeloid dendritic cells": "cDC", "Low-density neutrophils": None,
        "Low-density basophils": None,
    },
    "Blueprint and ENCODE (SingleR)": {
        "B-cells": "B", "CD4+ T-cells": "T", "CD8+ T-cells": "T", "DC": "cDC", "Eosinophils": None,
        "HSC": "HSC", "Macrophages": None, "Macrophages M1": None, "Monocytes": "Mono",
        "Neutrophils": None, "NK cells": "NK", "CLP": "CLP", "CMP": "Prog", "GMP": "GMP",
        "MEP": "Prog", "MPP": "Prog", "Memory B-cells": "B", "naive B-cells": "B",
        "Class-switched memory B-cells": "B", "Plasma cells": "Plasma", "Tregs": "T",
        "CD4+ Tcm": "T", "CD4+ Tem": "T", "CD8+ Tcm": "T", "CD8+ Tem": "T|CTL",
        "Megakaryocytes": None, "Fibroblasts": None, "Endothelial cells": None,
    },
    "Human Primary Cell Atlas (SingleR)": {
        "B_cell": "B", "BM & Prog.": None, "CMP": "Prog", "DC": "cDC", "GMP": "GMP",
        "HSC_-G-CSF": "HSC", "HSC_CD34+": "HSC", "MEP": "Prog", "Monocyte": "Mono", "NK_cell": "NK",
        "Platelets": None, "Pre-B_cell_CD34-": "Pre-B", "Pro-B_cell_CD34+": "ProB",
        "Pro-Myelocyte": None, "T_cells": "T", "Neutrophils": None, "BM": None, "Myelocyte": None,
        "Macrophage": None,
    },
    "DICE (SingleR)": {
        "B cells, naive": "B", "T cells, CD4+, naive": "T", "T cells, CD4+, TFH": "T",
        "T cells, CD4+, Th1": "T", "T cells, CD4+, Th1_17": "T", "T cells, CD4+, memory TREG": "T",
        "T cells, CD8+, naive": "T", "T cells, CD8+, naive, stimulated": "T", "NK cells": "NK",
        "Monocytes, CD14+": "Mono", "Monocytes, CD16+": "Mono",
    },
    "Tabula Sapiens": {
        "cd4-positive, alpha-beta t cell": "T", "cd8-positive, alpha-beta t cell": "T",
        "nk cell": "NK", "classical monocyte": "Mono", "non-classical monocyte": "Mono",
        "memory b cell": "B", "naive b cell": "B", "plasma cell": "Plasma", "plasmablast": None,
        "granulocyte": None, "hematopoietic stem cell": "HSC", "common myeloid progenitor": "Prog",
        "macrophage": None, "neutrophil": None, "platelet": None,
        "cd141-positive myeloid dendritic cell": "cDC", "mature nk t cell": None,
        "innate lymphoid cell": None,
    },
    "Hay 2018": {
        "LMPP": "Prog", "Pro-B": "ProB", "Pre-B": "Pre-B", "Immature B": "B", "Follicular B": "B",
        "Plasma Cell": "Plasma", "CD8 T": "T", "Naive T": "T", "Monocyte": "Mono",
        "Dendritic cell": "cDC", "Eosinophil/Basophil/Mast": None, "Megakaryocyte": None,
        "NK": "NK", "Stromal": None, "Multilin": None,
    },
    "Triana 2021": {
        "HSCs & MPPs": "HSC", "Lymphoid-primed multipotent progenitors": "Prog",
        "Erythro-myeloid progenitors": "Prog", "Early erythroid progenitor": "earlyEry",
        "Late erythroid progenitor": "lateEry", "Pro-B cells": "ProB", "Pre-pro-B cells": None,
        "Small pre-B cell": "Pre-B", "Pre-B cells": "Pre-B", "Mature naive B cells": "B",
        "Nonswitched memory B cells": "B", "Class switched memory B cells": "B",
        "CD11c+ memory B cells": "B", "Plasma cells": "Plasma", "CD4+ memory T cells": "T",
        "CD4+ cytotoxic T cells": "T|CTL", "CD8+ naive T cells": "T",
        "CD8+ effector memory T cells": "T|CTL", "CD8+ central memory T cells": "T",
        "CD8+CD103+ tissue resident memory T cells": "T", "GammaDelta T cells": "T",
        "NK cell progenitors": None, "CD56brightCD16- NK cells": "NK",
        "CD56dimCD16+ NK cells": "NK", "NK T cells": None, "Classical Monocytes": "Mono",
        "Non-classical monocytes": "Mono", "Conventional dendritic cell 1": "cDC",
        "Conventional dendritic cell 2": "cDC", "Plasmacytoid dendritic cells": "pDC",
        "Plasmacytoid dendritic cell progenitors": None, "Megakaryocyte progenitors": None,
        "Eosinophil-basophil-mast cell progenitors": None, "Aberrant erythroid": None,
        "Mesenchymal cells_1": None, "Myelocytes": None,
    },
}  # fmt: skip
