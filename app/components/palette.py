"""Colours and shapes: one fixed meaning each, on every page, in light and dark.

Up to eight categories use the colours of Okabe and Ito (2008), black and yellow replaced by
tones that stand out on both backgrounds. Cell types take the hue of their family and a
lightness of their own, so a type has one colour whatever else is shown. Values from 0 to 1 are
viridis. Outcomes and models differ by shape as well as by hue.
"""

from __future__ import annotations

import colorsys
import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "DIVERGING",
    "FALLBACK",
    "SIMULATED",
    "SMALL",
    "donor_colours",
    "ink",
    "model_colours",
    "model_shapes",
    "outcome_colours",
    "outcome_shapes",
    "timepoint_colours",
    "timepoint_shapes",
    "type_colours",
]

BLUE: Final = "#0072B2"
VERMILLION: Final = "#D55E00"
GREEN: Final = "#009E73"
PURPLE: Final = "#CC79A7"
ORANGE: Final = "#E69F00"
SKY: Final = "#56B4E9"
GREY: Final = "#808080"
OLIVE: Final = "#A89A12"
BROWN: Final = "#8C5A3C"

FALLBACK: Final = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, OLIVE, GREY)
SMALL: Final = "#B8B8B8"
"""Fill of a cell with too few cells or donors to be read as a score."""

SIMULATED: Final = {False: "#A64B00", True: "#FFB366"}
"""Ink of the mark on simulated data, by dark background; both above 4.5:1."""

DIVERGING: Final = ("#0072B2", "#9CCAE3", "#F7F7F7", "#F2B98C", "#D55E00")

_INK: Final = {False: "#3D3D3D", True: "#D6D6D6"}
_FAINT: Final = {False: "#8A8A8A", True: "#8A8A8A"}

_MODELS: Final = {
    "majority": (GREY, "square"),
    "logreg": (BLUE, "circle"),
    "celltypist": (GREEN, "triangle-up"),
    "hgb": (VERMILLION, "diamond"),
    "scgpt": (PURPLE, "cross"),
    "geneformer": (ORANGE, "triangle-down"),
    "scbert": (SKY, "triangle-right"),
    "scfoundation": (OLIVE, "triangle-left"),
}
_INIT_LIGHTNESS: Final = {"pretrained": -0.2, "scratch": 0.25, "frozen": -0.45}

_TIMEPOINTS: Final = {
    "Healthy": (GREEN, "circle"),
    "Diagnosis": (VERMILLION, "diamond"),
    "Post-treatment": (BLUE, "triangle-up"),
    "Relapse": (PURPLE, "square"),
}

_OUTCOMES: Final = {
    "correct": ("#A6A6A6", "square"),
    "wrong": (BLUE, "triangle-up"),
    "confidently wrong": (VERMILLION, "diamond"),
    "not scored": (OLIVE, "cross"),
}

_FAMILY_HUES: Final = {
    "Stem and progenitor": BLUE,
    "Erythroid": VERMILLION,
    "Megakaryocytic": OLIVE,
    "Monocytic and dendritic": ORANGE,
    "B lineage": GREEN,
    "T and NK": PURPLE,
    "Stromal": BROWN,
    "Other": GREY,
}

# Steps of lightness within a family, in the order of maturation. Positions are fixed: a type
# keeps its colour when others are absent. Malignant "-like" types stand one step darker.
_FAMILY_STEPS: Final = {
    "HSC": 0.0,
    "Prog": 0.36,
    "CLP": 0.62,
    "earlyEry": 0.0,
    "lateEry": 0.42,
    "GMP": -0.38,
    "ProMono": 0.0,
    "Mono": 0.34,
    "cDC": -0.18,
    "pDC": 0.6,
    "ProB": 0.55,
    "Pre-B": 0.34,
    "PreB": 0.34,
    "B": 0.0,
    "Plasma": -0.34,
    "T": 0.0,
    "CTL": -0.32,
    "NK": 0.42,
    # Ennis et al. 2023, both stages of its labels; names that it shares with the above stand there.
    "HSC.MPP": 0.0,
    "MEP": 0.36,
    "CMP.LMPP": 0.36,
    "GMP.Neut": -0.2,
    "CLP.1": 0.62,
    "CLP.2": 0.8,
    "Early.Baso": 0.18,
    "Early.Eryth": 0.0,
    "Late.Eryth": 0.42,
    "Megakaryocytes": 0.0,
    "CD14.Mono": 0.34,
    "CD14.Mono.1": 0.34,
    "CD14.Mono.2": 0.16,
    "CD16.Mono": 0.0,
    "Pre.B": 0.34,
    "CD4.N": 0.74,
    "CD4.N1": 0.74,
    "CD4.N2": 0.56,
    "CD4.M": 0.12,
    "CD8.N": -0.18,
    "CD8.M": -0.45,
    "CD8.CM": -0.45,
    "CD8.EM": -0.6,
    "Mesenchymal": 0.0,
}


def ink(*, dark: bool, faint: bool = False) -> str:
    """Return the colour of text and lines that carry no category."""
    return (_FAINT if faint else _INK)[dark]


def _shifted(colour: str, step: float) -> str:
    """Move a colour's lightness `step` of the way towards white (above 0) or black (below)."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    light += (1 - light) * step if step > 0 else light * step
    channels = colorsys.hls_to_rgb(hue, min(max(light, 0.12), 0.88), saturation)
    return "#" + "".join(f"{round(255 * channel):02X}" for channel in channels)


def _stable_fraction(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32


def _model_of(configuration: str) -> str:
    return configuration.split("-")[0].split(".")[0]


def model_colours(configurations: Mapping[str, str]) -> dict[str, str]:
    """Return display name → colour for configuration → display name.

    The hue belongs to the model, the lightness to how it was initialised.
    """
    colours = {}
    for configuration, display_name in configurations.items():
        model, init = _model_of(configuration), configuration.partition("-")[2]
        base = _MODELS[model][0] if model in _MODELS else FALLBACK[_slot(model)]
        step = next((v for k, v in _INIT_LIGHTNESS.items() if init.startswith(k)), 0.0)
        colours[display_name] = _shifted(base, step) if step else base
    return colours


def model_shapes(configurations: Mapping[str, str]) -> dict[str, str]:
    """Return display name → vega shape for configuration → display name."""
    shapes = tuple(shape for _, shape in _MODELS.values())
    return {
        display_name: _MODELS[model][1] if model in _MODELS else shapes[_slot(model)]
        for configuration, display_name in configurations.items()
        for model in (_model_of(configuration),)
    }


def _slot(name: str) -> int:
    return int(_stable_fraction(name) * len(FALLBACK))


def timepoint_colours(timepoints: Iterable[str]) -> dict[str, str]:
    """Return timepoint → colour."""
    return {t: _TIMEPOINTS[t][0] if t in _TIMEPOINTS else GREY for t in timepoints}


def timepoint_shapes(timepoints: Iterable[str]) -> dict[str, str]:
    """Return timepoint → vega shape."""
    return {t: _TIMEPOINTS[t][1] if t in _TIMEPOINTS else "square" for t in timepoints}


def outcome_colours() -> dict[str, str]:
    """Return outcome → colour."""
    return {outcome: colour for outcome, (colour, _) in _OUTCOMES.items()}


def outcome_shapes() -> dict[str, str]:
    """Return outcome → vega shape."""
    return {outcome: shape for outcome, (_, shape) in _OUTCOMES.items()}


def type_colours(cell_types: Mapping[str, str]) -> dict[str, str]:
    """Return cell type → colour for cell type → family.

    A malignant `X-like` type has the hue of `X` and is darker.
    """
    colours = {}
    for cell_type, family in cell_types.items():
        normal = cell_type.removesuffix("-like")
        step = _FAMILY_STEPS.get(normal)
        if step is None:
            step = round(_stable_fraction(normal) * 0.9 - 0.35, 2)
        colour = _shifted(_FAMILY_HUES.get(family, GREY), step)
        colours[cell_type] = _shifted(colour, -0.38) if normal != cell_type else colour
    return colours


def donor_colours(donors: Iterable[str], *, dark: bool = False) -> dict[str, str]:
    """Return donor → colour: eight hues in three lightnesses, in the order given.

    The second lightness is the one that stands out on the background.
    """
    steps = (0.0, 0.45, -0.2) if dark else (0.0, -0.35, 0.45)
    return {
        donor: _shifted(FALLBACK[i % len(FALLBACK)], steps[i // len(FALLBACK) % len(steps)])
        for i, donor in enumerate(donors)
    }
