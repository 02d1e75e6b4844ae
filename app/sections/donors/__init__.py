"""The Donors page."""
