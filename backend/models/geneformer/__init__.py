"""Geneformer (Theodoris et al. 2023)."""
