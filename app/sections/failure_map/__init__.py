"""The Failure map page."""
