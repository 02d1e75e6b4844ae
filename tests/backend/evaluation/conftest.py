import pytest

from tests.helpers import open_store, write_results


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """A simulated course over four timepoints; see `tests/helpers.py`."""
    return write_results(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="session")
def store(results):
    opened = open_store(results.root)
    yield opened
    opened.close()
