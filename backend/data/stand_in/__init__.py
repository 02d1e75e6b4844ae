"""A simulated file in the shape, columns and words of a published atlas."""

from __future__ import annotations

from typing import Final

__all__ = ["LIKE", "STAGES"]

LIKE: Final = ("ennis2023",)
"""The atlases whose shape can be had."""

STAGES: Final = ("first", "final")
"""Of the authors' file: before and after `celltype_final` and `tp` were added."""
