"""What every test has: a cache of compiled objects that is not the user's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One empty folder for compiled objects, for this run and the processes that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
