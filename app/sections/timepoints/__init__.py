"""The Timepoints page."""
