"""The Protocols page."""
