"""Training: runs over the folds of a split, and the one fine-tuning recipe."""
