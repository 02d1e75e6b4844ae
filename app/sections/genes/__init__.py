"""The Genes page."""
