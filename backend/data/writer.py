"""Write a dataset to `.h5ad` in pieces, so that its size is not bound by memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from backend.files import check_room, complete_or_absent

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    import pandas as pd
    from scipy.sparse import csr_matrix

__all__ = ["ABOUT_FIELDS", "H5adWriter", "stack_frames"]

ABOUT_FIELDS = ("name", "simulated", "source", "citation", "licence_note", "parent")
"""What `uns["faultline"]` says about a dataset."""

_VALUES_PER_CHUNK = 131_072
_SPARE = 4 << 20


class H5adWriter:
    """Write `.h5ad` piece by piece: complete when the block ends well, absent otherwise.

    Parameters
    ----------
    path
        The file to make; an existing one is replaced at the end.
    var
        One row per gene, indexed by its name.
    about
        The fields of `ABOUT_FIELDS`; None is written as an empty string.
    """

    def __init__(self, path: str | Path, var: pd.DataFrame, about: dict[str, Any]) -> None:
        self.path = path
        self.var = var
        self.about = about
        self._frames: list[pd.DataFrame] = []
        self._row_ends: list[np.ndarray] = [np.zeros(1, dtype=np.int64)]
        self._n_values = 0
        self._place: AbstractContextManager[Path] | None = None

    def __enter__(self) -> Self:
        import h5py

        self._place = complete_or_absent(self.path)
        self._file = h5py.File(self._place.__enter__(), "w")
        self._file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        matrix = self._file.create_group("X")
        matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        for name in ("data", "indices"):
            matrix.create_dataset(
                name,
                shape=(0,),
                maxshape=(None,),
                chunks=(_VALUES_PER_CHUNK,),
                dtype=np.int32,
                compression="gzip",
                compression_opts=1,
                shuffle=True,
            )
        return self

    def append(self, counts: csr_matrix, obs: pd.DataFrame) -> None:
        """Add cells; `obs` is indexed by cell id and has the same columns in every call."""
        if counts.shape != (len(obs), len(self.var)):
            msg = f"counts of shape {counts.shape} for {len(obs)} cells and {len(self.var)} genes"
            raise ValueError(msg)
        counts = counts.copy()
        counts.sum_duplicates()
        counts.eliminate_zeros()
        # HDF5 does not survive a full disk: it crashes when the file is closed.
        check_room(Path(self.path).parent, 8 * counts.nnz + _SPARE, f"`{Path(self.path).name}`")
        start, end = self._n_values, self._n_values + counts.nnz
        for name, values in (("data", counts.data), ("indices", counts.indices)):
            target = self._file["X"][name]
            target.resize((end,))
            target[start:end] = values.astype(np.int32)
        self._row_ends.append(counts.indptr[1:].astype(np.int64) + start)
        self._n_values = end
        self._frames.append(obs)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._place is not None
        try:
            if kind is None:
                self._finish()
        except BaseException as failure:
            self._file.close()
            self._place.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._file.close()
        self._place.__exit__(kind, error, trace)

    def _finish(self) -> None:
        import pandas as pd
        from anndata.io import write_elem

        obs = stack_frames(self._frames) if self._frames else pd.DataFrame()
        n_bytes = 8 * len(obs) + int(obs.memory_usage(deep=True).sum())
        n_bytes += int(self.var.memory_usage(deep=True).sum())
        check_room(Path(self.path).parent, n_bytes + _SPARE, f"`{Path(self.path).name}`")
        matrix = self._file["X"]
        matrix.attrs["shape"] = np.array([len(obs), len(self.var)], dtype=np.int64)
        matrix.create_dataset(
            "indptr", data=np.concatenate(self._row_ends), compression="gzip", compression_opts=1
        )
        packed = {"compression": "gzip", "compression_opts": 1}
        write_elem(self._file, "obs", obs, dataset_kwargs=packed)
        write_elem(self._file, "var", self.var, dataset_kwargs=packed)
        for name in ("layers", "obsm", "varm", "obsp", "varp"):
            write_elem(self._file, name, {})
        about = {name: self.about.get(name) for name in ABOUT_FIELDS}
        about = {name: "" if value is None else value for name, value in about.items()}
        write_elem(self._file, "uns", {"faultline": about})


def stack_frames(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Stack frames; categories are united in order of appearance, so that codes stay small."""
    import pandas as pd
    from pandas.api.types import union_categoricals

    columns: dict[str, Any] = {}
    for name in frames[0].columns:
        parts = [frame[name] for frame in frames]
        if isinstance(parts[0].dtype, pd.CategoricalDtype):
            # Pandas gives categories without any value a number type.
            parts = [part.cat.set_categories(part.cat.categories.astype(object)) for part in parts]
            columns[name] = union_categoricals(parts, ignore_order=True)
        else:
            columns[name] = pd.concat(parts, ignore_index=True).array
    index = pd.Index(np.concatenate([frame.index.to_numpy() for frame in frames]), name="cell_id")
    return pd.DataFrame(columns, index=index)
