"""The Confusions page."""
