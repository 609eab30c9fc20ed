"""ht-bench diagnose: networks and data by reference, weights from files, its outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ht_bench.diagnosis.weights import load_weights
from ht_bench.errors import UsageError
from ht_bench.networks.mlp import StackedMLP
from ht_bench.training import checkpoint

Call = Callable[..., Any]
BUDGET = ("--steps", "4", "--pairs", "2", "--batch", "8")
PROGRAM = """\
import torch
from torch import nn


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))


def data():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(40, 64, generator=draw), torch.randint(10, (40,), generator=draw)


def broken():
    raise KeyError("no such thing")


number = 3
"""


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(PROGRAM, encoding="utf-8")


def lone() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))


def test_report_json_and_figure(call: Call) -> None:
    words = ("--network", "net.py:build", "--data", "net.py:data", *BUDGET)
    said = call("diagnose", *words)
    assert said.code == 0 and "fresh − given [95 %]" in said.out and "2 pairs, 4 steps" in said.out
    assert "Training 2 pairs, twice 4 steps: about" in said.error
    said = call("diagnose", *words, "--format", "json", "--figure", "picture.png")
    assert json.loads(said.out)["budget"]["steps"] == 4
    assert Path("picture.png").stat().st_size > 10_000 and Path("picture.svg").is_file()
    assert "Figures: picture.png, picture.svg" in said.error


def test_digits_and_files_of_tensors(call: Call) -> None:
    torch.save((torch.randn(40, 64), torch.randint(10, (40,))), "data.pt")
    for data in ("digits", "data.pt"):
        said = call("diagnose", "--network", "net.py:build", "--data", data, *BUDGET)
        assert said.code == 0, said.error


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "--network is missing"),
        ("--network net.py:build", "--data is missing"),
        ("--network net --data digits", "write path/to/file.py:build"),
        ("--network net.py:built --data digits", "Did you mean 'build'"),
        ("--network net.py:broken --data digits", "net.py:broken failed: KeyError"),
        ("--network net.py:number --data digits", "net.py:number failed"),
        ("--network net.py:data --data digits", "makes a tuple, no torch module"),
        ("--network net.py:build --data digit", "Did you mean 'digits'"),
        ("--network net.py:build --data none.pt", "Could not read none.pt"),
        ("--network net.py:build --data digits --lr 0", "give positive numbers"),
        ("--network net.py:build --data digits --threads -1", "give 1 or more, or 0"),
        ("--network net.py:build --data digits --weights none.pt", "Could not read none.pt"),
        ("--network net.py:build --data digits --weights net.py", "net.py holds"),
    ],
)
def test_errors_are_one_sentence(call: Call, words: str, sentence: str) -> None:
    said = call("diagnose", *words.split())
    assert said.code == 2 and sentence in said.error, said.error
    assert len(said.error.strip().splitlines()) == 1


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"epoch": 3, "model": s}])
def test_a_state_dict(wrap: Callable[[Any], Any]) -> None:
    source, module = lone(), lone()
    torch.save(wrap(source.state_dict()), "state.pt")
    load_weights(module, Path("state.pt"))
    assert torch.equal(module[2].weight, source[2].weight)


def test_a_seed_of_a_run_s_checkpoint() -> None:
    stack, module = (
        StackedMLP((8, 4, 3), 3, "relu", "none"),
        StackedMLP((8, 4, 3), 1, "relu", "none"),
    )
    state = {"module": stack.state_dict(), "optimizer": {}}
    checkpoint.save(Path("checkpoint.pt"), "whose", state)
    load_weights(module, Path("checkpoint.pt"), slot=2)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor[0], stack.state_dict()[name][2])


def test_a_part_of_an_sb3_agent() -> None:
    from stable_baselines3 import DQN

    agent = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [4]}, buffer_size=10)
    agent.save("agent.zip")
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    load_weights(module, Path("agent.zip"), "q_net.q_net.")
    assert torch.equal(module[2].weight, agent.q_net.q_net[2].weight)  # type: ignore[index]
    with pytest.raises(UsageError, match="called 'q.…'; it has q_net"):
        load_weights(module, Path("agent.zip"), "q.")


class Malicious:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("touched"),))


def test_only_weights_are_read() -> None:
    torch.save({"state_dict": lone().state_dict(), "more": Malicious()}, "state.pt")
    with pytest.raises(UsageError, match="only weights are read"):
        load_weights(lone(), Path("state.pt"))
    assert not Path("touched").exists()


def test_another_network_s_weights() -> None:
    torch.save(nn.Linear(2, 2).state_dict(), "state.pt")
    with pytest.raises(UsageError, match="are not this network's"):
        load_weights(lone(), Path("state.pt"))
    torch.save([1, 2], "list.pt")
    with pytest.raises(UsageError, match="holds no state dict"):
        load_weights(lone(), Path("list.pt"))


def test_a_network_is_measured_as_it_is_and_from_a_checkpoint(call: Call) -> None:
    words = ("measure", "--network", "net.py:build", "--data", "net.py:data")
    said = call(*words, "--no-costly")
    assert said.code == 0 and "share of hidden units that are zero" in said.out
    assert "curvature" not in said.out
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    with torch.no_grad():
        module[1].bias.fill_(-1e3)  # no unit fires
    torch.save(module.state_dict(), "dead.pt")
    dead = json.loads(call(*words, "--weights", "dead.pt", "--format", "json").out)
    assert dead["plasticity/dormant_fraction"] == 1 and dead["curvature/top_eigenvalue"] > 0
    stack = StackedMLP((64, 8, 10), 2, "relu", "none")
    checkpoint.save(Path("checkpoint.pt"), "whose", {"module": stack.state_dict()})
    Path("stack.py").write_text(
        "from ht_bench.networks.mlp import StackedMLP\n\n\n"
        "def build():\n    return StackedMLP((64, 8, 10), 1, 'relu', 'none')\n"
    )
    words = ("measure", "--network", "stack.py:build", "--data", "net.py:data", "--no-costly")
    said = call(*words, "--weights", "checkpoint.pt", "--slot", "1", "--format", "json")
    norm = sum(float(p[1].detach().square().sum()) for p in stack.parameters()) ** 0.5
    assert json.loads(said.out)["weights/norm"] == pytest.approx(norm, rel=1e-5)
    assert "give 2 or more" in call(*words, "--examples", "1").error
