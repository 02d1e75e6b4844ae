"""Pickles made to harm end in a refusal, never in a crash, a lot of memory or a foreign call."""

from __future__ import annotations

import json
import pickle
import random
import struct
import subprocess
import sys

import numpy as np
import pytest

from backend.config import environment, project_root
from backend.errors import InputError
from backend.models.unpickle import read_pickled_dict

DTYPE = b"cnumpy\ndtype\n(X\x02\x00\x00\x00i8\x89\x88tR"


def words(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


# What crashed, exhausted or misled readers of pickles, each after `PROTO 2`.
CRAFTED = {
    # The state of a number type holds what numpy takes for its parts.
    "dtype with fields": DTYPE + b"(K\x03" + words("|") + b"N(" + words("a") + b"t}K\x08K\x01K\x10tb.",
    "dtype with a forged state": DTYPE + b"(K\x03" + words("<") + b"(K\x01K\x02tNNJ\xff\xff\xff\x7fK\x01K?tb.",
    "dtype with a short state": DTYPE + b"(K\x03tb.",
    "dtype built of a dictionary": DTYPE + b"}" + words("format") + words("999999999s") + b"sb.",
    "dtype of objects": b"cnumpy\ndtype\n(" + words("O8") + b"\x89\x88tR.",
    "dtype of a list": b"cnumpy\ndtype\n(]\x89\x88tR.",
    "dtype itself": DTYPE + b".",
    "scalar without type": b"cnumpy.core.multiarray\nscalar\n(K\x01K\x02tR.",
    "state of a function": b"cnumpy.core.multiarray\nscalar\n}" + words("__code__") + b"Nsb.",
    "state of a list": b"]}" + words("a") + b"Nsb.",
    "objects by their class": b"cnumpy\ndtype\n(" + words("i8") + b"t\x81.",
    "persistent object": b"Pone\n.",
    "extension": b"\x82\x01.",
    "memo of two thousand million": b"}r\xff\xff\xff\x7f.",
    "text of a million million bytes": b"\x80\x04\x8d" + struct.pack("<Q", 10**12) + b"a.",
    "bytes of all memory": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"a.",
    "key of nested tuples": b"}" + b")" + b"\x85" * 3_000_000 + b"K\x01s.",
    "nested lists": b"]" * 1_000_000 + b"a" * 999_999 + b".",
    "list that holds itself": b"]q\x00h\x00a.",
    "number of a million digits": b"}" + words("a") + b"I" + b"9" * 1_000_000 + b"\ns.",
    "number of many bytes": b"}" + words("a") + b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6 + b"s.",
    "no number": b"}" + words("a") + b"G\x7f\xf8\x00\x00\x00\x00\x00\x00s.",
    "infinite number": b"}" + words("a") + b"G\x7f\xf0\x00\x00\x00\x00\x00\x00s.",
    "name of a million letters": b"}" + words("a" * 1_000_000) + b"K\x01s.",
    "stack that is empty": b"0000.",
    "call of nothing": b"NNR.",
    "no end": b"}" * 1000,
}  # fmt: skip


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_pickle_is_refused(tmp_path, name):
    path = tmp_path / "token_dictionary.pkl"
    path.write_bytes(b"\x80\x02" + CRAFTED[name])
    with pytest.raises(InputError, match=r"`token_dictionary\.pkl` (was not read|holds)"):
        read_pickled_dict(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_kind_of_number_is_read(tmp_path, protocol):
    codes = ["i1", "u1", "<i2", ">i2", "u4", "i8", "f2", ">f4", "f8", "b1"]
    values = {code: np.ones(1, dtype=code)[0] for code in codes}
    path = tmp_path / "token_dictionary.pkl"
    path.write_bytes(pickle.dumps(values, protocol))
    assert read_pickled_dict(path) == dict.fromkeys(codes, 1)


def fuzzed(n: int, seed: int):
    """Yield pickles that are valid ones with bytes changed, moved, doubled or put in."""
    rng = random.Random(seed)
    whole = [
        pickle.dumps({"A": np.int16(3), "B": np.float64(0.5), "C": "id", "D": 7}, protocol)
        for protocol in (2, 3, 4, 5)
    ]
    pieces = [
        DTYPE,
        b"b",
        b"R",
        b"\x81",
        b"(",
        b"t",
        b"\x94",
        b"r\xff\xff\x00\x00",
        b"}",
        b"u",
        b"s",
    ]
    for i in range(n):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(2, len(data))
            match rng.randrange(5):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    data[at] ^= 1 << rng.randrange(8)
                case 2:
                    del data[at : at + rng.randint(1, 8)]
                case 3:
                    data[at:at] = rng.choice(pieces)
                case 4:
                    data[at:at] = data[at : at + rng.randint(1, 30)]
            if len(data) < 4:
                break
        # A pickle that nothing harmed would be read.
        yield i, bytes(data) + b"." if rng.random() < 0.5 else bytes(data)


def test_500_harmed_pickles_end_in_an_answer(tmp_path):
    """All in one process, so that a crash of any ends the test; none becomes another thing."""
    for i, data in fuzzed(500, seed=13):
        (tmp_path / f"{i:03d}.pkl").write_bytes(data)
    code = """
import json, sys
from pathlib import Path
from backend.models import unpickle
from backend.processes import limit_myself
limit_myself(unpickle._LIMITS)
found = [unpickle.read_in_child(None, path) for path in sorted(Path(sys.argv[1]).glob("*.pkl"))]
# Not `getrusage`, which begins with the peak of the process that started this one.
status = Path("/proc/self/status").read_text(encoding="utf-8")
peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
print(json.dumps({"found": found, "peak_mib": peak}))
"""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code, str(tmp_path)],
        cwd=project_root(), env=environment(), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert len(told["found"]) == 500
    assert told["peak_mib"] < 512
    refused = [answer for answer in told["found"] if "refused" in answer]
    assert len(refused) > 350
    for answer in told["found"]:
        for key, value in answer.get("values", {}).items():
            assert isinstance(key, str)
            assert isinstance(value, str | int | float)
