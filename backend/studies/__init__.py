"""Studies: plans of many runs, what they cost, and where they run."""
