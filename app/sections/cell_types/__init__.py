"""The Cell types page."""
