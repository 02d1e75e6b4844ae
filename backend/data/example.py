"""A small simulated sample, so that Evaluate can be tried without a file of one's own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backend.data.uploads import save_upload

if TYPE_CHECKING:
    from backend.data.uploads import Upload

__all__ = ["EXAMPLE_NAME", "bring_example", "write_example"]

EXAMPLE_NAME: Final = "Example (simulated).h5ad"
_CELLS: Final = 1_500
_GENES: Final = 12_000
_PEOPLE: Final = 2
_SEED: Final = 2026


def write_example(path: Path) -> None:
    """Write the two people with most cells of a simulated course: labelled, raw counts."""
    from backend.data.simulate import simulate

    cohort = simulate(_CELLS, seed=_SEED, n_genes=_GENES)
    people = cohort.obs["donor"].astype(str)
    chosen = people.value_counts().index[:_PEOPLE]
    sample = cohort[people.isin(chosen).to_numpy()].copy()
    about = dict(sample.uns["faultline"])
    sample.uns = {"faultline": about | {"name": "Example (simulated)", "simulated": True}}
    sample.obs = sample.obs[["cell_type_fine", "donor", "timepoint"]].rename(
        columns={"cell_type_fine": "cell_type"}
    )
    sample.write_h5ad(path, compression="gzip")


def bring_example(home: Path, owner: str) -> Upload:
    """Give an owner the example as an upload of theirs."""
    with tempfile.TemporaryDirectory(prefix="faultline-") as folder:
        path = Path(folder) / "example.h5ad"
        write_example(path)
        with path.open("rb") as stream:
            return save_upload(home, owner, stream, name=EXAMPLE_NAME, kind="cells")
