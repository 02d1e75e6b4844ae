"""The Blasts page."""
