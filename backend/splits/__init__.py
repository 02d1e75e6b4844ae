"""Splits: how cells are kept apart, frozen with a hash and a leakage report."""
