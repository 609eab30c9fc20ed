"""Compiled networks: when it pays, that they compute the same, and where no compiler is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ht_bench import networks
from ht_bench.training.compiled import CompiledForward, pays
from ht_bench.training.device import Compute

CNN = {"name": "cnn", "channels": [4], "hidden": [8]}


def test_long_runs_of_convolutional_nets_on_cuda_are_compiled() -> None:
    conv, mlp = (networks.build(t, (1, 8, 8), 10) for t in (CNN, {"name": "mlp"}))
    cuda = Compute("cuda")
    assert pays(conv, [10_000, 10_000], cuda)
    assert not pays(conv, [10_000, 9_999], cuda)
    assert not pays(conv, [10_000, 10_000], Compute("cpu"))
    assert not pays(mlp, [10_000, 10_000], cuda)


def test_it_computes_what_the_module_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    module, inputs = networks.build(CNN, (1, 8, 8), 10), torch.randn(4, 1, 8, 8)
    forward = CompiledForward(module, backend="eager")
    outputs = forward(inputs)
    torch.testing.assert_close(outputs, module(inputs))
    outputs.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert "counts as training time" in capsys.readouterr().err


def test_where_there_is_no_compiler_the_module_itself_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "here")

    def compile(module: nn.Module, **_: Any) -> Any:
        def fail(inputs: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no compiler was found\nin any place")

        return fail

    monkeypatch.setattr(torch, "compile", compile)
    module, inputs = networks.build(CNN, (1, 8, 8), 10), torch.randn(4, 1, 8, 8)
    forward = CompiledForward(module)
    with pytest.warns(UserWarning, match=r"cannot be compiled here .*\(no compiler was found\)"):
        outputs = forward(inputs)
    assert torch.equal(forward(inputs), outputs)
