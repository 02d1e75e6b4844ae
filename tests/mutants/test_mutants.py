"""The list of deliberate changes does not rot, and still turns tests red."""

import pytest

from tests.mutants.runner import ROOT, main
from tests.mutants.table import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_is_changed_occurs_once(mutant):
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    assert mutant.old != mutant.new
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8")


def test_names_are_unique():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.slow
def test_some_mutants_turn_a_test_red(capsys):
    chosen = ("epsilon of the batch norm", "scbert: bins one higher", "`<cls>` with a value")
    assert main([word for name in chosen for word in ("--only", name)]) == 0
    assert f"{len(chosen)} of {len(chosen)} mutants" in capsys.readouterr().out


def test_an_unknown_name_is_told(capsys):
    assert main(["--only", "nobody"]) == 1
    assert "nobody" in capsys.readouterr().out
