"""What one page needs, a folder a page."""
