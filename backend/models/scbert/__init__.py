"""scBERT (Yang et al. 2022)."""
