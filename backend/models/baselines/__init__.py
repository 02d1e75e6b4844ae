"""Baselines: classifiers that every foundation model must beat."""
