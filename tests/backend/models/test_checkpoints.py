"""Checkpoints from outside: read safely, fitted completely or refused, registered by name."""

import json
import os
import pickle
import shutil
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from backend.cli import main
from backend.config import golden_dir
from backend.errors import InputError, ModelUnavailable
from backend.models import catalogue
from backend.models.checkpoints import (
    CheckpointFile,
    check_files,
    file_sha256,
    files_sha256,
    fit_tensors,
    read_json,
    read_tensors,
    read_torch,
)
from backend.models.unpickle import read_pickled_dict

SCGPT = golden_dir() / "scgpt" / "pretrained"
GENEFORMER = golden_dir() / "geneformer"
needs_fixtures = pytest.mark.skipif(
    not SCGPT.is_dir() or not GENEFORMER.is_dir(), reason="no golden fixtures"
)


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/faultline-was-here",)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2)


@pytest.fixture
def tensors():
    torch.manual_seed(1)
    return {
        name: tensor.clone() for name, tensor in Small().body.state_dict(prefix="body.").items()
    }


def fit(tensors, **options):
    network = Small()
    return network, fit_tensors(network, tensors, display_name="Small", head=("head.*",), **options)


def test_all_tensors_load(tensors):
    network, report = fit(tensors)
    assert torch.equal(network.body.weight, tensors["body.weight"])
    assert (report.n_loaded, report.share_loaded) == (2, 1.0)
    assert report.fresh == ("head.bias", "head.weight")
    assert report.dropped == ()


def test_renamed_and_unused_tensors_are_reported(tensors):
    tensors = {name.replace("body", "trunk"): tensor for name, tensor in tensors.items()}
    tensors["decoder.weight"] = torch.ones(2)
    _, report = fit(
        tensors, rename=lambda name: name.replace("trunk", "body"), unused=("decoder.*",)
    )
    assert report.renamed == {"trunk.weight": "body.weight", "trunk.bias": "body.bias"}
    assert report.dropped == ("decoder.weight",)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.pop("body.weight"), r"gives 25.0% .* 1 are missing: `body.weight`"),
        (lambda t: t.update({"body.extra": torch.ones(1)}), "1 have no place .* `body.extra`"),
        (lambda t: t.update({"body.weight": torch.ones(4, 3)}), r"is \(4, 3\), expected \(3, 3\)"),
        (lambda t: t["body.bias"].fill_(float("nan")), "not finite: `body.bias`"),
    ],
)
def test_wrong_tensors_are_refused_and_nothing_is_changed(tensors, spoil, message):
    spoil(tensors)
    network = Small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(InputError, match=message):
        fit_tensors(network, tensors, display_name="Small", head=("head.*",))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_partial_load_is_accepted_only_by_name(tensors):
    del tensors["body.bias"]
    tensors["body.weight"] = tensors["body.weight"][:2]
    tensors["strange"] = torch.ones(1)
    _, report = fit(tensors, accept_partial=True)
    assert report.share_loaded == 0
    assert report.dropped == ("body.weight", "strange")
    assert set(report.fresh) == {"body.bias", "body.weight", "head.bias", "head.weight"}
    assert any("body.weight" in note for note in report.notes)


def test_the_reason_stands_in_the_message(tensors):
    del tensors["body.bias"]
    with pytest.raises(InputError, match=r"Because body\.bias\."):
        fit(tensors, explain=lambda missing, unknown: f"Because {missing[0]}.")


def test_two_names_of_one_tensor_are_refused(tensors):
    tensors["trunk.bias"] = tensors["body.bias"]
    with pytest.raises(InputError, match="twice"):
        fit(tensors, rename=lambda name: name.replace("trunk", "body"))


def test_half_precision_is_converted_and_said(tensors):
    network, report = fit({name: tensor.half() for name, tensor in tensors.items()})
    assert network.body.weight.dtype == torch.float32
    assert report.notes == ("tensors stored as float16 were converted",)


def test_torch_files_with_classes_are_not_run(tmp_path):
    torch.save({"weight": torch.ones(2), "evil": Evil()}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"forbidden name `(posix|nt)\.system`"):
        read_torch(tmp_path / "model.pt")
    assert not os.path.exists("/tmp/faultline-was-here")  # noqa: PTH110


@pytest.mark.parametrize("size", [0, 1, 700])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_damaged_weights_are_refused(tmp_path, name, size):
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save({"weight": torch.ones(1000)}, path)
    else:
        save_file({"weight": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"not a complete|was not read"):
        read_tensors(path)


def test_missing_weights_are_refused(tmp_path):
    for name in ("model.pt", "model.safetensors"):
        with pytest.raises(InputError, match="has no"):
            read_tensors(tmp_path / name)


def test_weights_inside_wrappers(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"epoch": 3, "model_state_dict": OrderedDict(weight=torch.ones(2))}, path)
    assert set(read_tensors(path, inside=("model_state_dict",))) == {"weight"}
    with pytest.raises(InputError, match='no part "state_dict"'):
        read_tensors(path, inside=("state_dict",))
    with pytest.raises(InputError, match="does not map names to tensors"):
        read_tensors(path)


@pytest.mark.parametrize(
    "text", ["{", "[1]", "\xff", '{"a":' * 100_000, '{"a": ' + "9" * 6_000 + "}"]
)
def test_broken_json_is_refused(tmp_path, text):
    path = tmp_path / "args.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"args\.json"):
        read_json(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickled_dictionaries_of_numbers_are_read(tmp_path, protocol):
    path = tmp_path / "token_dictionary.pkl"
    path.write_bytes(pickle.dumps({"A": np.int16(3), "B": np.float64(0.5), "C": "id"}, protocol))
    found = read_pickled_dict(path)
    assert found == {"A": 3, "B": 0.5, "C": "id"}
    assert type(found["A"]) is int


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"A": Evil()}, "forbidden name `(posix|nt).system`"),
        ({"A": OrderedDict()}, "forbidden name `collections.OrderedDict`"),
        ([1, 2], "holds a list"),
        ({"A": [1]}, "maps str to list"),
        ({1: "A"}, "maps int to str"),
    ],
)
def test_other_pickles_are_refused(tmp_path, value, message):
    path = tmp_path / "token_dictionary.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(InputError, match=message):
        read_pickled_dict(path)
    assert not os.path.exists("/tmp/faultline-was-here")  # noqa: PTH110


@pytest.mark.parametrize("keep", [0, 1, 10, -1])
def test_cut_pickles_are_refused(tmp_path, keep):
    path = tmp_path / "token_dictionary.pkl"
    path.write_bytes(pickle.dumps({"A": np.int16(3), "B": "long enough to cut"})[:keep])
    with pytest.raises(InputError, match="was not read"):
        read_pickled_dict(path)


def test_files_are_compared_as_far_as_is_known(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{}", encoding="utf-8")
    digest = file_sha256(path)
    files = [
        CheckpointFile("m.p", "a.json", size, sha256, "Somewhere.")
        for size, sha256 in ((2, digest), (2, digest[:8]), (None, ""), (3, digest), (2, "0" * 64))
    ]
    files.append(CheckpointFile("m.p", "b.json", 2, digest, "Somewhere."))
    checks = check_files(files, lambda name: path if name == "a.json" else None)
    assert [check.status for check in checks] == [
        "same",
        "same",
        "unknown",
        "other",
        "other",
        "missing",
    ]
    assert [check.text.partition(" ")[0] for check in checks] == [
        "as",
        "as",
        "found;",
        "differs:",
        "differs:",
        "missing",
    ]


def test_one_hash_for_several_files(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name, encoding="utf-8")
    paths = [tmp_path / "a", tmp_path / "b"]
    assert files_sha256(paths) == files_sha256(paths[::-1]) != files_sha256(paths[:1])


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@needs_fixtures
def test_a_folder_is_registered_and_found(own_home, capsys):
    assert main(["checkpoints", "add", "scgpt", str(SCGPT), "--name", "tiny"]) == 0
    out = capsys.readouterr().out
    assert "100.0% of the backbone" in out
    assert "differ from the published ones" in out
    entry = catalogue.find_checkpoint("scgpt", "tiny")
    assert (entry.preset, entry.is_published) == ("scgpt.whole_human", False)
    assert set(entry.files) == {"args.json", "vocab.json", "best_model.pt"}
    assert main(["checkpoints", "list", "scgpt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["registered"][0]["name"] == "tiny"
    with pytest.raises(ModelUnavailable, match=r'no checkpoint "other" here\. Registered: tiny'):
        catalogue.find_checkpoint("scgpt", "other")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hidden_size", "32", "hidden_size as str"),
        ("hidden_size", None, "hidden_size as NoneType"),
        ("vocab_size", [1], "vocab_size as list"),
        ("hidden_size", -4, "hidden_size as -4; at least 1"),
        ("num_attention_heads", 5, "do not describe a network of Geneformer"),
        ("hidden_act", "../../x", "do not describe a network of Geneformer"),
        ("num_hidden_layers", 10**7, "num_hidden_layers as 10,000,000; at most 512"),
        ("intermediate_size", 10**4000, "as a number of many digits; at most 1,048,576"),
        ("intermediate_size", 10**6, "parameters, but its tensors hold"),
    ],
)
@needs_fixtures
def test_sizes_that_make_no_network_are_refused(own_home, tmp_path, name, value, message):
    folder = tmp_path / "model"
    shutil.copytree(GENEFORMER / "v1" / "pretrained", folder)
    shutil.copytree(GENEFORMER / "v1" / "dictionaries", tmp_path / "dictionaries")
    values = json.loads((folder / "config.json").read_text()) | {name: value}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=message):
        catalogue.add("geneformer", folder, name="odd")
    assert catalogue.registered() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("embsize", 0), ("nheads", -1), ("nlayers", 10**9), ("n_bins", 10**9), ("d_hid", 10**6)],
)
@needs_fixtures
def test_settings_that_make_no_network_are_refused(own_home, tmp_path, name, value):
    folder = tmp_path / "model"
    shutil.copytree(SCGPT, folder)
    values = json.loads((folder / "args.json").read_text())
    (folder / "args.json").write_text(json.dumps(values | {name: value}))
    with pytest.raises(InputError, match=rf"give {name} as|but its tensors hold"):
        catalogue.add("scgpt", folder, name="odd")


@pytest.mark.parametrize("shape", [(), (5,), (0, 4), (2, 3, 4)])
def test_scbert_weights_of_other_ranks_are_refused(own_home, tmp_path, shape):
    name = "performer.net.layers.{}.0.fn.{}"
    tensors = {
        "token_emb.weight": torch.ones(shape),
        "pos_emb.emb.weight": torch.ones(3, 4),
        name.format(0, "to_q.weight"): torch.ones(shape),
        name.format(0, "fast_attention.projection_matrix"): torch.ones(3, 0),
        name.format(10**9, "to_q.weight"): torch.ones(1),
    }
    torch.save({"model_state_dict": tensors}, tmp_path / "panglao_pretrain.pth")
    (tmp_path / "panel.txt").write_text("A\nB\n")
    with pytest.raises(InputError, match="do not describe a network of scBERT"):
        catalogue.add("scbert", tmp_path, name="odd")


@needs_fixtures
def test_dictionaries_count_in_the_hash_of_a_checkpoint(own_home):
    entry, _ = catalogue.add("geneformer", GENEFORMER / "v1" / "pretrained", name="tiny")
    assert set(entry.files) == {
        "config.json",
        "model.safetensors",
        "token_dictionary.pkl",
        "gene_median_dictionary.pkl",
        "ensembl_mapping_dict.pkl",
    }


@needs_fixtures
def test_verify_says_what_differs(capsys):
    assert main(["checkpoints", "verify", "scgpt", str(SCGPT)]) == 1
    assert "differs: 1,056 bytes, published 1,300" in capsys.readouterr().out
    assert main(["checkpoints", "verify", "geneformer", str(GENEFORMER / "v2"), "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["is_good"]


def test_missing_files_say_where_to_get_them(own_home, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        assert main(["checkpoints", "add", "scgpt", str(tmp_path / folder)]) == 2
        assert "Google Drive" in capsys.readouterr().err
    assert not own_home.exists()


def test_baselines_have_no_checkpoints(tmp_path, capsys):
    assert main(["checkpoints", "add", "majority", str(tmp_path)]) == 2
    assert "has no checkpoints" in capsys.readouterr().err


@needs_fixtures
@pytest.mark.parametrize(
    ("options", "message"),
    [(["--name", "../tiny"], "cannot name"), (["--preset", "small"], "not small")],
)
def test_wrong_registrations_are_refused(own_home, capsys, options, message):
    assert main(["checkpoints", "add", "scgpt", str(SCGPT), *options]) == 2
    assert message in capsys.readouterr().err
    assert not own_home.exists()


@needs_fixtures
@pytest.mark.parametrize("key", ["scgpt", "geneformer", "scbert", "scfoundation"])
def test_the_folder_of_another_model_is_refused(own_home, key, capsys):
    folders = {
        "scgpt": SCGPT,
        "geneformer": GENEFORMER / "v2" / "pretrained",
        "scbert": golden_dir() / "scbert",
        "scfoundation": golden_dir() / "scfoundation",
    }
    for other, folder in folders.items():
        if other != key:
            assert main(["checkpoints", "add", key, str(folder)]) == 2, other
            assert "hint" in capsys.readouterr().err
    assert not own_home.exists()


@needs_fixtures
def test_a_download_that_broke_off_is_refused(own_home, tmp_path, capsys):
    for path in SCGPT.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "best_model.pt"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    assert main(["checkpoints", "add", "scgpt", str(tmp_path)]) == 2
    assert "Get the file from the authors again" in capsys.readouterr().err
    assert not own_home.exists()


@needs_fixtures
def test_another_version_is_refused(own_home, capsys):
    folder = GENEFORMER / "v1" / "pretrained"
    assert main(["checkpoints", "add", "geneformer", str(folder), "--preset", "v2_104m"]) == 2
    assert "not v2_104m" in capsys.readouterr().err


def test_listing_names_every_published_file(own_home, capsys):
    assert main(["checkpoints", "list"]) == 0
    out = capsys.readouterr().out
    for name in ("best_model.pt", "model.safetensors", "gene_median_dictionary_gc104M.pkl"):
        assert name in out
    assert "Registered: none" in out
