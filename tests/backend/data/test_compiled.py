"""What numba compiles is kept on disk, where there is a place."""

import types

from numba import njit

from backend.data import compiled


def double(x):
    return 2 * x


def test_compiled_code_is_kept(monkeypatch, tmp_path):
    function = compiled.compiled(double)
    assert function(3) == 6
    assert function.stats.cache_path
    assert sum(function.stats.cache_hits.values()) + sum(function.stats.cache_misses.values()) == 1


def test_code_of_other_packages_is_kept_and_nothing_else():
    module = types.ModuleType(__name__)
    module.ours, module.other, module.plain = njit(double), njit(types.new_class), double
    compiled.kept_compiled(module)
    assert module.ours.stats.cache_path
    assert module.other.stats.cache_path is None


def test_without_a_place_it_is_compiled_all_the_same(monkeypatch):
    def refuse(self):
        msg = "cannot cache function: no locator available"
        raise RuntimeError(msg)

    monkeypatch.setattr("numba.core.dispatcher.Dispatcher.enable_caching", refuse)
    assert compiled.compiled(double)(4) == 8
