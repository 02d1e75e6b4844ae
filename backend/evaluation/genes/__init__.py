"""Genes that separate failures from other cells: contrasts, and tests over donors."""
