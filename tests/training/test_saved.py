"""What torch saved is read as plain values; what is refused is refused soon, and in short."""

from __future__ import annotations

import io
import pickle
import zipfile

import pytest
import torch
from torch import _weights_only_unpickler

from ht_bench.training.saved import LONGEST_REFUSAL, load_tensors


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


def with_program(program: bytes) -> io.BytesIO:
    """Return what torch would have saved, had it written this pickle."""
    made = io.BytesIO()
    with zipfile.ZipFile(saved({})) as honest, zipfile.ZipFile(made, "w") as changed:
        for member in honest.infolist():
            is_pickle = member.filename.endswith("data.pkl")
            changed.writestr(member.filename, program if is_pickle else honest.read(member))
    return made


def test_a_long_refusal_is_cut_before_torch_searches_it() -> None:
    """torch quotes what it refuses, here 300 kB of it, and would search it for minutes."""
    name = b"x" * 300_000
    with pytest.raises(pickle.UnpicklingError) as caught:
        load_tensors(with_program(b"\x80\x02c" + name + b"\n" + name + b"\n."))
    assert len(str(caught.value)) < 3 * LONGEST_REFUSAL + 2_000


def test_a_key_whose_hash_would_crash_is_refused() -> None:
    deep = b")" + b"\x85" * 100_000
    with pytest.raises(ValueError, match="tuples within tuples"):
        load_tensors(with_program(b"\x80\x02}" + deep + b"Ns."))
