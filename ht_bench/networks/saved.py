"""What torch saved, read as tensors and plain values alone."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator
from typing import IO, Any

import torch
from torch import _weights_only_unpickler as _unpickler

LONGEST_REFUSAL = 1_000


class _BriefError(pickle.UnpicklingError):
    """Says why something is not loaded.

    torch quotes what it refuses, whole, and searches the sentence by patterns in time that grows
    with the square of its length: a file of 100 kB took minutes to refuse.
    """

    def __init__(self, sentence: str = "") -> None:
        super().__init__(str(sentence)[:LONGEST_REFUSAL])


@contextlib.contextmanager
def _brief() -> Iterator[None]:
    module: Any = _unpickler
    before = module.UnpicklingError
    module.UnpicklingError = _BriefError
    try:
        yield
    finally:
        module.UnpicklingError = before


def load_tensors(content: IO[bytes], places: str | Callable[[Any, str], Any] = "cpu") -> Any:
    """Return what `torch.save` wrote; raises pickle.UnpicklingError for more than plain values.

    places: where tensors go, as `torch.load`'s map_location. No code of the file's runs.
    """
    with _brief():
        return torch.load(content, map_location=places, weights_only=True)
