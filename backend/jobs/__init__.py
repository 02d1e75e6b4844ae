"""Long work outside the web process: job folders, and the worker that runs them."""
