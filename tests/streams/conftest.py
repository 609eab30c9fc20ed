"""A copy of tasks/ to change."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ht_bench.files import folder
from ht_bench.streams import catalog, lock


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of tasks/ that the catalogue and the lock's command read."""
    copied = Path(shutil.copytree(folder("tasks"), tmp_path / "tasks"))
    monkeypatch.setattr(catalog, "folder", lambda name: copied)
    monkeypatch.setattr(lock, "folder", lambda name: copied)
    catalog._shipped.cache_clear()
    yield copied
    catalog._shipped.cache_clear()
