"""A diagnosis: pairs trained alike, the user's network left alone, verdicts by the intervals."""

from __future__ import annotations

import copy
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import ht_bench
from ht_bench.diagnosis.examples import Examples, read
from ht_bench.diagnosis.report import LOSS, NONE_FOUND, UNSURE, Budget, Diagnosis, Gap
from ht_bench.diagnosis.training import batches, fresh_twin

ROOT = Path(__file__).parent.parent.parent
TINY = {"steps": 6, "pairs": 2, "points": 3, "batch": 16, "progress": False}


def network() -> nn.Module:
    """The same weights in whichever order tests run: some learn nothing in so few steps."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
        )


def separable(count: int = 120) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (count,), generator=draw)
    return torch.randn(count, 8, generator=draw) + 2 * torch.eye(8)[labels], labels


def diagnose(module: nn.Module, data: Any = None, **changes: Any) -> Diagnosis:
    return ht_bench.diagnose(module, data or separable(), **{**TINY, **changes})


def test_the_network_and_the_random_numbers_are_left_alone() -> None:
    module = network()
    module[1].eval()
    module(torch.randn(4, 8)).sum().backward()
    before = copy.deepcopy(module.state_dict())
    gradients = [p.grad.clone() for p in module.parameters()]  # type: ignore[union-attr]
    modes = [child.training for child in module.modules()]
    hooks = [len(child._forward_hooks) for child in module.modules()]
    state = torch.get_rng_state()
    diagnose(module, progress=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in before.items())
    pairs = zip(module.parameters(), gradients, strict=True)
    assert all(torch.equal(p.grad, g) for p, g in pairs)  # type: ignore[arg-type]
    assert [child.training for child in module.modules()] == modes
    assert [len(child._forward_hooks) for child in module.modules()] == hooks


def test_an_equal_twin_is_trained_to_equal_bits() -> None:
    """Same batches, dropout and optimizer: without a difference at first there is none later."""
    module = network()
    answer = diagnose(module, fresh=lambda: copy.deepcopy(module))
    for gap in answer.gaps:
        assert np.array_equal(gap.given, gap.fresh)
        assert (gap.estimate.low, gap.estimate.high) == (0, 0)
    assert not np.array_equal(answer.gaps[0].given[0], answer.gaps[0].given[1])  # pairs differ


def test_the_same_seed_gives_the_same_numbers() -> None:
    module = network()
    one, two, other = (diagnose(module, seed=seed).to_dict() for seed in (1, 1, 2))
    assert one | {"seconds": 0} == two | {"seconds": 0}
    assert one["gaps"] != other["gaps"]


def test_random_labels_are_learned_after_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network that has learned the data goes on; its labels tell nothing of the inputs."""
    from ht_bench.diagnosis import diagnose as module_of

    seen: list[tuple[int, Examples]] = []

    def keep(network: nn.Module, make: Any, train: Examples, *rest: Any) -> list[float]:
        seen.append((id(network), train))
        return [0.0] * 4

    monkeypatch.setattr(module_of, "learning_curve", keep)
    inputs, labels = separable()
    diagnose(network(), (inputs, labels), pairs=2)
    given, fresh, given_again, fresh_again = seen[:4]
    assert given[0] == given_again[0] and fresh[0] == fresh_again[0] and given[0] != fresh[0]
    assert given[1] is fresh[1] and given_again[1] is fresh_again[1]
    true = {tuple(x.tolist()): int(y) for x, y in zip(inputs, labels, strict=True)}
    agree = [true[tuple(x.tolist())] == y for x, y in zip(given_again[1].inputs,
             given_again[1].labels, strict=True)]  # fmt: skip
    assert np.mean(agree) < 0.6
    assert not torch.equal(given_again[1].labels, seen[6][1].labels)  # drawn anew for each pair


def gap(differences: list[float], rise: float = 0.5, margin: float = 0.02) -> Gap:
    fresh = np.tile([0.9 - rise, 0.9, 0.9], (len(differences), 1))
    given = fresh - np.array(differences)[:, None]
    return Gap("test accuracy", margin, (0, 5, 10), given, fresh)


def answer(*gaps: Gap) -> Diagnosis:
    return Diagnosis(gaps, (), Budget(), 1.0)


def test_the_interval_is_students_over_pairs() -> None:
    values = [0.01, 0.05, -0.02, 0.03]
    estimate = gap(values).estimate
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert estimate.value == pytest.approx(np.mean(values))
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ([[0.05, 0.06, 0.05], [0.0, 0.001, 0.0]], LOSS),
        ([[0.0, 0.001, 0.0], [0.05, 0.06, 0.05]], LOSS),
        ([[0.0, 0.001, 0.0], [-0.2, -0.1, -0.2]], NONE_FOUND),
        ([[0.01, 0.011, 0.01], [0.0, 0.001, 0.0]], NONE_FOUND),  # surely a gap, too small to count
        ([[0.05, -0.05, 0.06], [0.0, 0.001, 0.0]], UNSURE),
        ([[0.0, 0.001, 0.0], [0.05, -0.05, 0.06]], UNSURE),
    ],
)
def test_verdicts(gaps: list[list[float]], verdict: str) -> None:
    found = answer(*map(gap, gaps))
    assert found.verdict == verdict
    assert str(found).lower().startswith(verdict)


def test_gaps_tell_nothing_where_fresh_twins_learn_nothing() -> None:
    assert answer(gap([0.0, 0.001, 0.0], rise=0.01)).verdict == UNSURE
    assert "learn too little" in str(answer(gap([0.05, 0.06, 0.05], rise=0.01)))
    assert answer(gap([0.0, 0.0, 0.0]), gap([0.5, 0.5, 0.5], rise=0.01)).verdict == NONE_FOUND


def dead_network() -> nn.Module:
    module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    with torch.no_grad():
        module[0].bias[:31] = -100
    return module


def test_dead_units_are_found_and_named() -> None:
    torch.manual_seed(0)
    found = diagnose(dead_network(), steps=150, pairs=3, lr=1e-2)
    assert found.verdict == LOSS
    dormant = next(s for s in found.symptoms if s.name == "dormant fraction")
    assert dormant.is_worse and dormant.given == pytest.approx(31 / 32, abs=1e-6)
    assert "dormant fraction" in str(found).splitlines()[0]


def test_a_fresh_network_has_nothing() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    found = diagnose(module, steps=150, pairs=3, lr=1e-2)
    assert found.verdict != LOSS
    assert abs(found.gaps[0].estimate.value) < 0.1


def test_the_twin_is_drawn_anew_where_the_network_trains() -> None:
    module = network()
    module[0].requires_grad_(False)
    module(torch.randn(64, 8) + 5)  # moves the running mean
    twins = [fresh_twin(module, torch.Generator().manual_seed(seed), None) for seed in (0, 1)]
    for twin in twins:
        assert torch.equal(twin[0].weight, module[0].weight)  # frozen
        assert not torch.equal(twin[4].weight, module[4].weight)
        assert (twin[1].running_mean == 0).all() and (module[1].running_mean != 0).any()
    assert not torch.equal(twins[0][4].weight, twins[1][4].weight)


def test_a_batch_is_of_one_epoch_and_each_epoch_has_its_order() -> None:
    order = batches(10, 4, 5, torch.Generator().manual_seed(0))
    assert order.shape == (5, 4)
    assert all(len(set(order[i : i + 2].flatten().tolist())) == 8 for i in (0, 2))
    assert not torch.equal(order[:2], order[2:4])
    assert batches(3, 64, 2, torch.Generator()).shape == (2, 3)


class Pairs(Dataset[Any]):
    def __init__(self) -> None:
        self.inputs, self.labels = separable()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.inputs[index], int(self.labels[index])


def test_forms_of_data() -> None:
    inputs, labels = separable()
    forms: list[Any] = [
        (inputs, labels),
        (inputs.numpy(), labels.numpy().astype(np.int32)),
        TensorDataset(inputs, labels),
        DataLoader(TensorDataset(inputs, labels), batch_size=50),
        Pairs(),
    ]
    for form in forms:
        examples, test = read(form, torch.Generator())
        assert test is None and examples.are_classes and examples.labels.dtype == torch.int64
        by_value = sorted(zip(examples.inputs.tolist(), examples.labels.tolist(), strict=True))
        assert by_value == sorted(zip(inputs.tolist(), labels.tolist(), strict=True))
    train, test = read("digits", torch.Generator())
    assert train.inputs.shape == (1297, 1, 8, 8) and test is not None and len(test) == 500
    assert abs(float(train.inputs.mean())) < 1e-5


def test_targets() -> None:
    """Regression: the explained share of variance, never below 0; random targets in their place."""
    inputs, _ = separable()
    targets = inputs[:, :2] * 3 + 1
    examples = Examples(inputs, targets)
    assert float(examples.score(targets)) == 1
    assert float(examples.score(targets.mean(0).expand_as(targets))) == pytest.approx(0, abs=1e-5)
    assert float(examples.score(targets * float("nan"))) == 0
    drawn = examples.with_random_labels(torch.Generator().manual_seed(0), 0).labels
    assert drawn.mean(0).tolist() == pytest.approx(targets.mean(0).tolist(), abs=1.5)
    assert drawn.std(0).tolist() == pytest.approx(targets.std(0).tolist(), rel=0.2)
    found = diagnose(nn.Linear(8, 2), (inputs, targets), steps=200, lr=1e-1)
    assert found.gaps[0].measure == "test explained variance"
    assert found.gaps[0].ends[0] > 0.9


@pytest.mark.parametrize(
    ("module", "changes", "sentence"),
    [
        (nn.ReLU(), {}, "ReLU has no parameters"),
        (nn.Linear(9, 3), {}, "does not take inputs .4, 8."),
        (nn.Linear(8, 2), {}, "Labels of 0 to 2 for 2 outputs"),
        (nn.LSTM(8, 3), {}, "returns tuple; wrap it"),
        (nn.Linear(8, 3).requires_grad_(False), {}, "no parameter that requires a gradient"),
        (nn.Linear(8, 3), {"steps": 0}, "steps is 0; give 1 or more"),
        (nn.Linear(8, 3), {"pairs": 1}, "pairs is 1; give 2 or more"),
        (nn.Linear(8, 3), {"epochs": 1}, "unexpected keyword argument 'epochs'; a budget has"),
        (nn.Linear(8, 3), {"margin": 0.0}, "the margin above 0"),
        (nn.Linear(8, 3), {"fresh": lambda: nn.Linear(8, 4)}, "fresh= builds another network"),
    ],
)
def test_refusals(module: nn.Module, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ht_bench.UsageError, match=sentence):
        diagnose(module, **changes)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"x": 1}, "Data of type dict: give"),
        ("digit", "Did you mean 'digits'"),
        ((torch.zeros(3, 2), torch.zeros(4)), "give as many of both"),
        ((torch.zeros(3, 8), torch.zeros(3, dtype=torch.long)), "too few"),
    ],
)
def test_refused_data(data: Any, sentence: str) -> None:
    with pytest.raises(ht_bench.UsageError, match=sentence):
        diagnose(nn.Linear(8, 3), data)


def test_json_holds_everything() -> None:
    found = diagnose(network()).to_dict()
    assert json.loads(json.dumps(found))["verdict"] == found["verdict"]
    curves = found["gaps"]["accuracy on random labels"]["curves"]
    assert np.shape(curves["given"]) == (2, 4) and curves["step"] == [0, 2, 4, 6]


@pytest.mark.evidence
def test_planted_and_healthy_networks(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Of 20 networks with planted loss nearly all are found, of 20 healthy ones nearly none."""
    program = runpy.run_path(str(ROOT / "docs" / "diagnosis.py"))
    assert len(list(program["planted"]())) == len(list(program["healthy"]())) == 20
    cases = [*program["planted"](), *program["healthy"]()]
    verdicts = [program["diagnosed"](case, seed).verdict for seed, case in enumerate(cases)]
    assert sum(verdict == LOSS for verdict in verdicts[:20]) >= 18
    assert sum(verdict == LOSS for verdict in verdicts[20:]) <= 2
