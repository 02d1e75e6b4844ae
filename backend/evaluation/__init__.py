"""Evaluation: confusions, panels, F1 and donor intervals."""
