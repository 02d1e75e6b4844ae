"""Splits: how cells are kept apart, frozen with a hash and a leakage report."""

from backend.splits.leakage import LeakageReport, leakage_report
from backend.splits.make import is_within_budget, make_split, make_splits
from backend.splits.split import TEST, TRAIN, UNUSED, VALID, Split

__all__ = [
    "TEST",
    "TRAIN",
    "UNUSED",
    "VALID",
    "LeakageReport",
    "Split",
    "is_within_budget",
    "leakage_report",
    "make_split",
    "make_splits",
]
