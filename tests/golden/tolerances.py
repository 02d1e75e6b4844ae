"""How close numbers of two machines must be: one table, for every golden comparison.

Why these, README.md beside this file says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["TOLERANCES", "assert_close"]

TOLERANCES: Final = {
    "double": (1e-12, 0.0),
    "formula": (1e-5, 1e-6),
    "network": (1e-5, 1e-5),
    "trained": (1e-5, 5e-5),
}
"""What was computed: (of each number, of the largest number of its array)."""


def assert_close(
    actual: ArrayLike | torch.Tensor, expected: ArrayLike, kind: str, *, name: str = ""
) -> None:
    """Compare numbers made here with numbers of the reference.

    Parameters
    ----------
    kind
        "double" or "formula": a formula in float64 or float32. "network": a forward pass in
        float32. "trained": gradients, and what comes after steps of an optimiser.
    """
    if isinstance(actual, torch.Tensor):
        actual = actual.detach().numpy()
    expected = np.asarray(expected)
    relative, of_largest = TOLERANCES[kind]
    finite = expected[np.isfinite(expected)]
    largest = float(np.abs(finite).max(initial=0.0))
    np.testing.assert_allclose(
        actual, expected, rtol=relative, atol=of_largest * largest, err_msg=name
    )
