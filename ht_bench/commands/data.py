"""ht-bench data: fetch, import and verify datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from ht_bench.errors import UsageError

Action = Literal["fetch", "import", "verify"]


def data(
    action: Annotated[Action, tyro.conf.Positional],
    name: Annotated[str, tyro.conf.Positional] = "",
    path: Annotated[Path | None, tyro.conf.Positional] = None,
) -> int:
    """Fetch a dataset from the hub, import it from local files, or verify what is cached.

    Examples: ht-bench data fetch cifar10; ht-bench data import cifar10 PATH (a folder of parquet
    files, of train/<class>/*.png and test/<class>/*.png, or the files as downloaded:
    cifar-10-python.tar.gz, MNIST/raw, tiny-imagenet-200, an .npz); ht-bench data verify.

    Args:
        action: fetch (network), import (local files) or verify (hashes of the cache).
        name: the dataset, as `ht-bench list data` names it.
        path: import: the folder with its files, or an archive.

    """
    from ht_bench.streams import data as source

    if action == "verify":
        return _verify(name)
    if not name:
        raise UsageError(f"Name a dataset: ht-bench data {action} cifar10.")
    if action == "fetch":
        got = source.fetch(name)
    elif path is None:
        raise UsageError(f"Name the files: ht-bench data import {name} PATH.")
    else:
        got = source.import_path(name, path)
    counts = f"{len(got.train_labels)} training and {len(got.test_labels)} test images"
    print(f"{name}: {counts}, sha256 {got.sha256}; next: ht-bench list tasks")
    return 0


def _verify(name: str) -> int:
    """Say of each dataset, or of `name` alone, whether it is intact; 1 if one is not."""
    from ht_bench.streams import data as source

    intact = True
    for dataset, sentence in source.verify(name):
        print(f"{dataset}: {sentence}")
        intact = intact and sentence.startswith(("intact", source.ABSENT))
    return 0 if intact else 1
