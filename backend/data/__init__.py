"""Datasets: open, check, map, import, simulate and subset."""
