"""Where and how precisely a network computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import torch

from backend.errors import InputError
from backend.training.measure import resident_mib

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

__all__ = ["autocast", "fabric_precision", "find_device", "peak_memory_mib", "start_peak_memory"]

FabricPrecision = Literal["bf16-mixed", "16-mixed", "32-true"]

_FABRIC: Final[Mapping[str, FabricPrecision]] = {
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
    "fp32": "32-true",
}
_DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


def find_device(wanted: str) -> torch.device:
    """Return the device of that name; "auto" is a GPU where there is one."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def _resolved(precision: str, device: torch.device) -> str:
    if precision == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return precision


def fabric_precision(precision: str, device: torch.device) -> FabricPrecision:
    """Return Lightning Fabric's name of a precision for training.

    Raises
    ------
    InputError
        For fp16 on a CPU.
    """
    resolved = _resolved(precision, device)
    if resolved == "fp16" and device.type == "cpu":
        msg = "precision is fp16, but the fit runs on a CPU, which does not train in it."
        raise InputError(msg, "Use precision=auto, bf16 or fp32.")
    return _FABRIC[resolved]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Return the context in which a network predicts; fp16 becomes fp32 on a CPU."""
    resolved = _resolved(precision, device)
    if resolved == "fp16" and device.type == "cpu":
        resolved = "fp32"
    return torch.autocast(
        device.type,
        dtype=_DTYPES.get(resolved, torch.bfloat16),
        enabled=resolved in _DTYPES,
    )


def start_peak_memory(device: torch.device) -> None:
    """Start looking for the peak of `peak_memory_mib` anew (on a GPU)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak of a GPU's allocated memory, or the memory of this process now, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resident_mib()
