"""Predict with stored models: load a final run, stream a dataset, say what does not belong."""
