"""Faultline's backend: data, splits, models, training, bundles, store and evaluation.

Importing this package is cheap; heavy libraries are imported by the modules that use them.
"""

__version__ = "0.1.0"
