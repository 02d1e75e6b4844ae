"""scGPT (Cui et al. 2024)."""
