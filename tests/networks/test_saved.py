"""What torch saved is read as plain values; what is refused is refused soon, and in short."""

from __future__ import annotations

import io
import pickle

import pytest
import torch
from torch import _weights_only_unpickler

from ht_bench.networks.saved import LONGEST_REFUSAL, load_tensors


def saved(value: object) -> io.BytesIO:
    content = io.BytesIO()
    torch.save(value, content)
    content.seek(0)
    return content


def test_tensors_and_plain_values_come_back() -> None:
    value = load_tensors(saved({"weights": torch.arange(3), "steps": [1, 2.5, "x"]}))
    assert value["weights"].tolist() == [0, 1, 2] and value["steps"] == [1, 2.5, "x"]


def test_other_objects_are_refused() -> None:
    with pytest.raises(pickle.UnpicklingError, match="not an allowed global"):
        load_tensors(saved(pytest.approx(1.0)))
    assert _weights_only_unpickler.UnpicklingError is pickle.UnpicklingError


def test_a_long_refusal_is_cut_before_torch_searches_it() -> None:
    """A pickle whose state is built on what is no object: torch quotes the name, 300 kB of it."""
    name = b"x" * 300_000
    program = b"\x80\x02c" + name + b"\n" + name + b"\n."
    content = io.BytesIO(program)
    with pytest.raises(pickle.UnpicklingError) as caught:
        load_tensors(content)
    assert len(str(caught.value)) < 3 * LONGEST_REFUSAL + 2_000
