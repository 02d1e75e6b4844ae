"""A split as a frozen artefact: the role of every cell in every fold, with a hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from backend.errors import SplitError
from backend.files import replaced
from backend.types import canonical_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NO_TIMEPOINT", "ROLE_NAMES", "TEST", "TRAIN", "UNUSED", "VALID", "Split"]

UNUSED: Final = 0
TRAIN: Final = 1
VALID: Final = 2
TEST: Final = 3
NO_TIMEPOINT: Final = "no timepoint"
"""What coverage calls cells without one."""
ROLE_NAMES: Final = {TRAIN: "train", VALID: "valid", TEST: "test"}

_HEADER: Final = b"faultline_split"


@dataclass(frozen=True)
class Split:
    """Roles of cells in the folds of one protocol.

    cell_ids : (n_cells,) str
    roles    : (n_cells, n_folds) int8, one of UNUSED, TRAIN, VALID, TEST
    coverage : types that a role lacks; columns `fold`, `role`, `cell_type`, `timepoint`, `n_cells`
               (cells of that type and timepoint in the whole dataset)
    warnings : what could not be had, in sentences

    Every cell is TEST in exactly one fold; a cell without a label is never TRAIN or VALID.
    """

    protocol: str
    seed: int
    budget: str
    dataset_id: str
    cell_ids: np.ndarray
    roles: np.ndarray
    coverage: pd.DataFrame = field(compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @property
    def folds(self) -> int:
        """Number of folds."""
        return int(self.roles.shape[1])

    @property
    def test_fold(self) -> np.ndarray:
        """(n_cells,) int16: the fold in which each cell is tested."""
        return (self.roles == TEST).argmax(axis=1).astype(np.int16)

    def cells(self, fold: int, role: int) -> np.ndarray:
        """Return the (n_cells,) mask of the cells with a role in a fold."""
        return self.roles[:, fold] == role

    def sizes(self) -> pd.DataFrame:
        """Return the number of cells by fold (rows) and role (columns `train`, `valid`, `test`)."""
        return pd.DataFrame(
            {name: (self.roles == role).sum(axis=0) for role, name in ROLE_NAMES.items()},
            index=pd.RangeIndex(self.folds, name="fold"),
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of protocol, budget, seed, dataset, cell ids and roles."""
        digest = hashlib.sha256(canonical_json(self._identity()).encode())
        digest.update("\n".join(map(str, self.cell_ids)).encode())
        digest.update(np.ascontiguousarray(self.roles, dtype=np.int8).tobytes())
        return digest.hexdigest()

    def check_fit_cells(self, fold: int, cell_ids: np.ndarray) -> None:
        """Raise `SplitError` when a fit is about to see a cell that this fold tests.

        Raises
        ------
        SplitError
            If any of `cell_ids` has the role TEST in `fold`.
        """
        tested = pd.Index(self.cell_ids[self.cells(fold, TEST)])
        leaked = pd.Index(cell_ids).intersection(tested)
        if len(leaked):
            msg = (
                f"{len(leaked):,} test cells of fold {fold} were handed to a fit, "
                f"for example {', '.join(map(str, leaked[:3]))}."
            )
            raise SplitError(msg, "Fit on the cells with the role train only.")

    def _identity(self) -> dict[str, object]:
        return {
            "protocol": self.protocol,
            "seed": self.seed,
            "budget": self.budget,
            "dataset_id": self.dataset_id,
            "folds": self.folds,
        }

    def save(self, path: Path) -> None:
        """Write the split to one parquet file, complete or not at all."""
        columns: dict[str, object] = {"cell_id": pa.array(self.cell_ids.astype(str))}
        for fold in range(self.folds):
            columns[f"fold_{fold}"] = pa.array(self.roles[:, fold], type=pa.int8())
        header = self._identity() | {
            "sha256": self.sha256,
            "warnings": list(self.warnings),
            "coverage": self.coverage.to_dict(orient="list"),
        }
        table = pa.table(columns).replace_schema_metadata({_HEADER: json.dumps(header).encode()})
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as draft:
            pq.write_table(table, draft, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read a split and verify its hash.

        Raises
        ------
        SplitError
            If the file is not a split, or its content does not match its hash.
        """
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            msg = f'"{path.name}" cannot be read as a split ({error}).'
            raise SplitError(msg, "Make it again with `python -m backend split`.") from error
        raw = (table.schema.metadata or {}).get(_HEADER)
        if raw is None:
            msg = f'"{path.name}" is a parquet file, but not a split of this project.'
            raise SplitError(msg, "Make one with `python -m backend split`.")
        header = json.loads(raw)
        roles = np.column_stack(
            [table[f"fold_{fold}"].to_numpy() for fold in range(header["folds"])]
        ).astype(np.int8)
        split = cls(
            protocol=header["protocol"],
            seed=header["seed"],
            budget=header["budget"],
            dataset_id=header["dataset_id"],
            cell_ids=table["cell_id"].to_numpy(zero_copy_only=False).astype(object),
            roles=roles,
            coverage=pd.DataFrame(header["coverage"]),
            warnings=tuple(header["warnings"]),
        )
        if split.sha256 != header["sha256"]:
            msg = f'"{path.name}" was changed after it was frozen: its hash does not match.'
            raise SplitError(msg, "Make it again with the same seed, or restore the file.")
        return split
