"""Exports by stable-baselines3's recipe hold the tortoise's actions, in ONNX and in TorchScript."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from .conftest import HARE_TORTOISE, NEVER, apart, observations

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


class Exported(nn.Module):
    """What is exported: a policy or a network, told `deterministic=True` where it listens."""

    def __init__(self, network: nn.Module, told: bool = True) -> None:
        super().__init__()
        self.network, self.flag = network, {"deterministic": True} if told else {}

    def forward(self, seen: Any) -> Any:
        return self.network(seen, **self.flag)


def exported(algorithm: str, policy: Any) -> Exported:
    if algorithm in ("ppo", "a2c"):
        return Exported(policy)
    network = policy.parts[0].module
    return Exported(network, told=algorithm == "sac")


def by_hand(policy: Any, model: Exported, seen: Any, which: str) -> Any:
    with policy.acting_as(which), torch.no_grad():
        found = model(torch.as_tensor(seen))
    return (found[0] if isinstance(found, tuple) else found).numpy()


def check(algorithm: str, make: Any, path: Path, dynamo: bool) -> None:
    settings = {"env": "Pendulum-v1"} if algorithm == "ppo" else {}
    policy = apart(make(algorithm, HARE_TORTOISE, policy_kwargs=NEVER, **settings).policy)
    model, seen = exported(algorithm, policy), observations(policy, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.as_tensor(seen[:1]),), str(path), input_names=["input"],
            opset_version=18 if dynamo else 17, dynamo=dynamo, verbose=False,
        )  # fmt: skip
    session = runtime.InferenceSession(str(path))
    found = np.concatenate([session.run(None, {"input": row[None]})[0] for row in seen])
    assert np.allclose(found, by_hand(policy, model, seen, "tortoise"), rtol=1e-4, atol=1e-5)
    assert not np.allclose(found, by_hand(policy, model, seen, "hare"), rtol=1e-3, atol=1e-3)


def test_an_onnx_file_acts_as_the_tortoise(algorithm: str, make: Any, tmp_path: Path) -> None:
    check(algorithm, make, tmp_path / "model.onnx", dynamo=False)


@pytest.mark.evidence
@pytest.mark.parametrize("algorithm", ["ppo", "sac", "td3", "dqn"])
def test_torchs_new_exporter_does_so_too(
    algorithm: str, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the checks of its distributions SB3's own policies cannot be exported this way.
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", False)
    check(algorithm, make, tmp_path / "model.onnx", dynamo=True)


def test_a_traced_network_acts_as_the_tortoise(algorithm: str, make: Any) -> None:
    policy = apart(make(algorithm, HARE_TORTOISE, policy_kwargs=NEVER).policy)
    model, seen = exported(algorithm, policy), observations(policy, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model.eval(), torch.as_tensor(seen))
    found = traced(torch.as_tensor(seen))
    found = (found[0] if isinstance(found, tuple) else found).detach().numpy()
    assert np.allclose(found, by_hand(policy, model, seen, "tortoise"), rtol=1e-4, atol=1e-5)
    assert not np.allclose(found, by_hand(policy, model, seen, "hare"), rtol=1e-3, atol=1e-3)
