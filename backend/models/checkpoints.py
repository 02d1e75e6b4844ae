"""Read checkpoints safely, fit their tensors to a network, and know the published files."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import struct
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal

from backend.errors import InputError, ModelUnavailable, first_line
from backend.models.base import CheckpointFile, LoadReport
from backend.types import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from backend.models.base import GeneReport

__all__ = [
    "CheckpointFile",
    "FileCheck",
    "check_files",
    "check_sizes",
    "file_sha256",
    "files_sha256",
    "fit_tensors",
    "fresh_weights",
    "loaded_weights",
    "read_json",
    "read_safetensors",
    "read_tensors",
    "read_torch",
    "share_of",
    "unavailable",
    "understood",
    "with_genes",
]

_UNREADABLE: Final = (
    EOFError, ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError,
    TypeError, ValueError, struct.error,
)  # fmt: skip
"""What PyTorch's reader raises over bytes that it did not expect."""
_GET_AGAIN: Final = (
    "Get the file from the authors again; `checkpoints verify` compares it with the known sha256."
)


_LARGEST_JSON: Final = 64 << 20
"""The largest published vocabulary has 1.3 MB."""
_SIZE: Final = re.compile(r"dim|depth$|heads|layers|size$|n_bins|d_hid|max_position")
"""In the names of settings that are at least 1."""
_LARGEST_SIZE: Final = 1 << 20
_MOST_LAYERS: Final = 512
_FRESH: Final = 1 << 26
"""Parameters that a network may have beside four times those of its file: heads and decoders."""


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What a folder holds in the place of one published file.

    status is "same" (size and sha256 agree as far as they are known), "other" (it differs),
    "unknown" (nothing to compare it with) or "missing".
    """

    file: CheckpointFile
    status: Literal["same", "other", "unknown", "missing"]
    path: Path | None
    size: int | None
    sha256: str | None

    @property
    def text(self) -> str:
        """What was found, for a table."""
        if self.status == "missing":
            return "missing"
        if self.status == "unknown":
            return "found; no published sha256 to compare it with"
        if self.status == "same":
            is_prefix = 0 < len(self.file.sha256) < 64
            return (
                f"as published (first {len(self.file.sha256)} digits)"
                if is_prefix
                else "as published"
            )
        if self.file.size is not None and self.size != self.file.size:
            return f"differs: {self.size:,} bytes, published {self.file.size:,}"
        return f"differs: sha256 {(self.sha256 or '')[:12]}…, published {self.file.sha256[:12]}…"


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(paths: Iterable[Path]) -> str:
    """Return one sha256 for several files, whatever their order and folder."""
    return sha256_of({path.name: file_sha256(path) for path in paths})


def check_files(
    files: Sequence[CheckpointFile], find: Callable[[str], Path | None]
) -> list[FileCheck]:
    """Compare the files that `find` (name to path, or None) gives with the published ones."""
    checks = []
    for file in files:
        path = find(file.name)
        if path is None:
            checks.append(FileCheck(file, "missing", None, None, None))
            continue
        size, digest = path.stat().st_size, file_sha256(path)
        status: Literal["same", "other", "unknown"] = "same"
        if (file.size is not None and size != file.size) or not digest.startswith(file.sha256):
            status = "other"
        elif not file.sha256:
            status = "unknown"
        checks.append(FileCheck(file, status, path, size, digest))
    return checks


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`.

    Raises
    ------
    InputError
        If the file is missing, damaged, too large, or holds no object.
    """
    if path.is_file() and (size := path.stat().st_size) > _LARGEST_JSON:
        msg = f"`{path.name}` has {size:,} bytes; at most {_LARGEST_JSON:,} are read."
        raise InputError(msg, _GET_AGAIN)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"The checkpoint folder has no `{path.name}`."
        raise InputError(
            msg, "Point to the folder that holds all files of the checkpoint."
        ) from None
    except (ValueError, RecursionError) as error:
        # Beside bytes that are no JSON: numbers of thousands of digits, and values nested too deep.
        msg = f"`{path.name}` is not JSON: {first_line(error)}."
        raise InputError(msg, _GET_AGAIN) from None
    if not isinstance(value, dict):
        msg = f"`{path.name}` holds a {type(value).__name__}; an object is expected."
        raise InputError(msg, _GET_AGAIN)
    return value


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        msg = f"The checkpoint folder has no `{path.name}`."
        raise InputError(
            msg, "Point to the folder that holds all files of the checkpoint."
        ) from None
    except SafetensorError as error:
        msg = f"`{path.name}` is not a complete safetensors file: {error}."
        raise InputError(msg, _GET_AGAIN) from None


def read_torch(path: Path) -> Any:
    """Return what `torch.save` wrote to `path`, if it holds nothing but tensors and plain values.

    Raises
    ------
    InputError
        If the file is missing or damaged, or its pickle names a class that is not allowed.
    """
    import torch

    if not path.is_file():
        msg = f"The checkpoint folder has no `{path.name}`."
        raise InputError(msg, "Point to the folder that holds all files of the checkpoint.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"the forbidden name `{found[1]}`" if found else "more than tensors"
        msg = f"`{path.name}` was not read: it holds {what}."
        raise InputError(
            msg, "Save the plain state dict with `torch.save(model.state_dict(), …)`."
        ) from None
    # A file that ends before its own tables makes PyTorch seek to nowhere.
    except (*_UNREADABLE, OSError) as error:
        msg = f"`{path.name}` is not a complete checkpoint: {first_line(error)}"
        raise InputError(msg, _GET_AGAIN) from None


def read_tensors(path: Path, *, inside: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the tensors by name of a `.safetensors` or `torch.save` file.

    Parameters
    ----------
    inside
        Keys that lead to the state dict when the file wraps it, outermost first.
    """
    from torch import Tensor

    value = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    for key in inside:
        if not isinstance(value, dict) or key not in value:
            found = (
                ", ".join(sorted(map(str, value))[:5])
                if isinstance(value, dict)
                else type(value).__name__
            )
            msg = f'`{path.name}` has no part "{key}". Found: {found}.'
            raise InputError(msg, _GET_AGAIN)
        value = value[key]
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    ):
        msg = f"`{path.name}` does not map names to tensors."
        raise InputError(msg, "Save the plain state dict with `torch.save(model.state_dict(), …)`.")
    return dict(value)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(f"`{name}`" for name in names[:5]) + (" …" if len(names) > 5 else "")


def share_of(network: nn.Module, names: Iterable[str], *, head: Sequence[str] = ()) -> float:
    """Return the share of the network's parameters outside `head` that `names` make up."""
    wanted = set(names)
    sizes = {
        name: parameter.numel()
        for name, parameter in network.named_parameters()
        if not _matches(name, head)
    }
    total = sum(sizes.values())
    return sum(size for name, size in sizes.items() if name in wanted) / total if total else 1.0


def fit_tensors(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    display_name: str,
    rename: Callable[[str], str] = lambda name: name,
    head: Sequence[str] = (),
    unused: Sequence[str] = (),
    accept_partial: bool = False,
    explain: Callable[[Sequence[str], Sequence[str]], str] | None = None,
) -> LoadReport:
    """Copy a checkpoint's tensors into `network` in place, and report what became of each.

    Parameters
    ----------
    rename
        Name in the file to name in the network.
    head
        Patterns (`fnmatch`) of the network's tensors that may stay fresh; they do not count in
        `share_loaded`.
    unused
        Patterns of the file's tensors that a classifier has no use for.
    accept_partial
        Leave misshapen and missing tensors fresh and drop unknown ones, instead of refusing.
    explain
        Given the missing names of the network and the unknown names of the file, returns why
        they are likely to differ, as a sentence, or "".

    Raises
    ------
    InputError
        If a backbone tensor is missing or has another shape, a tensor has no place, two have the
        same, or values are not finite. The network is unchanged then.
    """
    import torch

    own = network.state_dict()
    targets = {name: rename(name) for name in tensors}
    doubled = [target for target, n in Counter(targets.values()).items() if n > 1]
    if doubled:
        msg = f"The checkpoint holds {len(doubled)} tensors of {display_name} twice. Found: {_some(doubled)}."
        raise InputError(msg, "Keep one naming of each tensor in the file.")
    dropped = [name for name, target in targets.items() if target not in own]
    unknown = [name for name in dropped if not _matches(name, unused)]
    misshapen = {
        name: target
        for name, target in targets.items()
        if target in own and own[target].shape != tensors[name].shape
    }
    loaded = {
        target: tensors[name]
        for name, target in targets.items()
        if target in own and name not in misshapen
    }
    fresh = [name for name in own if name not in loaded]
    missing = [
        name for name in fresh if not _matches(name, head) and name not in misshapen.values()
    ]
    share = share_of(network, loaded, head=head)
    misshapen_backbone = [name for name in misshapen if not _matches(targets[name], head)]
    if (missing or misshapen_backbone or unknown) and not accept_partial:
        parts = [f"{display_name}'s checkpoint gives {share:.1%} of the backbone's parameters."]
        if misshapen_backbone:
            first = misshapen_backbone[0]
            parts.append(
                f"{len(misshapen_backbone)} tensors have another shape: `{first}` is "
                f"{tuple(tensors[first].shape)}, expected {tuple(own[targets[first]].shape)}."
            )
        if missing:
            parts.append(f"{len(missing)} are missing: {_some(missing)}.")
        if unknown:
            parts.append(f"{len(unknown)} have no place in the network: {_some(unknown)}.")
        if explain is not None and (reason := explain(missing, unknown)):
            parts.append(reason)
        hint = (
            "Use the files of one published checkpoint; accept a partial load by name only if you "
            "know why tensors are missing."
        )
        raise InputError(" ".join(parts), hint)
    broken = [
        name
        for name, tensor in loaded.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if broken:
        msg = f"{len(broken)} tensors of the checkpoint hold values that are not finite: {_some(broken)}."
        raise InputError(msg, _GET_AGAIN)
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in loaded.values()}
    notes = []
    if other := sorted(
        dtypes - {str(tensor.dtype).removeprefix("torch.") for tensor in own.values()}
    ):
        notes.append(f"tensors stored as {', '.join(other)} were converted")
    if misshapen:
        notes.append(f"left fresh for their shape: {_some(misshapen.values())}")
    if missing:
        notes.append(f"accepted without: {_some(missing)}")
    network.load_state_dict(loaded, strict=False)
    return LoadReport(
        n_loaded=len(loaded),
        share_loaded=share,
        renamed={
            name: target for name, target in targets.items() if target in loaded and target != name
        },
        dropped=tuple(sorted([*dropped, *misshapen])),
        fresh=tuple(sorted(fresh)),
        notes=tuple(notes),
    )


@contextmanager
def understood(display_name: str) -> Iterator[None]:
    """Turn what breaks over unexpected contents of a checkpoint folder into a refusal."""
    try:
        yield
    except _UNREADABLE as error:
        msg = f"The files do not describe a network of {display_name}: {first_line(error)[:300]}"
        raise InputError(msg, _GET_AGAIN) from error


def check_sizes(
    sizes: Mapping[str, object],
    network: Callable[[], nn.Module],
    tensors: Mapping[str, Tensor],
    display_name: str,
) -> None:
    """Refuse sizes that describe no network, or one far beyond the tensors that came with them.

    Parameters
    ----------
    sizes
        Size by name, as the files give them.
    network
        Builds the network of these sizes; called without memory for its parameters.

    Raises
    ------
    InputError
        With the number and the limit.
    """
    import torch

    for name, size in sizes.items():
        most = _MOST_LAYERS if "layers" in name or "depth" in name else _LARGEST_SIZE
        if isinstance(size, int) and abs(size) > most:
            digits = f"{size:,}" if abs(size) < 10**18 else "a number of many digits"
            msg = f"The files give {name} as {digits}; at most {most:,} is read."
            raise InputError(msg, _GET_AGAIN)
        if type(size) is int and size < 1 and _SIZE.search(name):
            msg = f"The files give {name} as {size:,}; at least 1 is expected."
            raise InputError(msg, _GET_AGAIN)
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in network().parameters())
    held = sum(tensor.numel() for tensor in tensors.values())
    if wanted > 4 * held + _FRESH:
        msg = (
            f"The sizes in the files ask for a network of {display_name} with {wanted:,} "
            f"parameters, but its tensors hold {held:,}."
        )
        raise InputError(msg, _GET_AGAIN)


def loaded_weights(network: nn.Module, report: LoadReport) -> dict[str, Tensor]:
    """Return the tensors of `network` that `fit_tensors` filled."""
    own = network.state_dict()
    return {name: tensor for name, tensor in own.items() if name not in report.fresh}


@contextmanager
def fresh_weights(seed: int | None) -> Iterator[None]:
    """Draw weights from `seed` and leave torch's generator alone; None draws from that."""
    import torch

    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def with_genes(report: LoadReport, genes: GeneReport) -> LoadReport:
    """Return the report with how a dataset's genes met the vocabulary."""
    return replace(report, genes=genes)


def unavailable(
    display_name: str, folder: Path, names: Sequence[str], source: str
) -> ModelUnavailable:
    """Return the error for a folder that lacks files, with where to get them."""
    msg = f"{display_name} was not read: the folder has no {_some(names)}."
    if not folder.is_dir():
        msg = f"{display_name} was not read: there is no folder `{folder.name}`."
    return ModelUnavailable(msg, source)
