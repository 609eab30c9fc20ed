"""What every method keeps: strength nothing is `none`, a resumed run's bits, bad values refused."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.early_stop import EarlyStop
from ht_bench.methods.ema import ExponentialMovingAverage
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.methods.penalties import L2, L2Init
from ht_bench.methods.resets import FullReset, HeadReset, ShrinkPerturb
from ht_bench.methods.self_distillation import SelfDistillation
from ht_bench.training.checkpoint import CheckpointPlan
from ht_bench.training.history import Interrupted, Observer
from ht_bench.training.supervised import SupervisedRun

from .conftest import CNN, MLP, assert_equal, make_run

NETS: dict[str, Mapping[str, Any]] = {"mlp": MLP, "cnn": CNN}


@functools.cache
def plain_run(net: str) -> SupervisedRun:
    return make_run(Method(), NETS[net])


def assert_same_run(left: SupervisedRun, right: SupervisedRun) -> None:
    assert_equal(left.module.state_dict(), right.module.state_dict())
    for key in ("train/accuracy", "train/loss", "step"):
        assert [p[key] for p in left.history.points] == [p[key] for p in right.history.points]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    "method",
    [
        ExponentialMovingAverage(decay=0.9),
        HareTortoise(decay=0.9, reset_every=None),
        HareTortoise(decay=0.9, reset_every=1000),
        HareTortoise(decay=0.0, reset_every=5, optimizer_state="keep"),  # s = θ
        SelfDistillation(strength=0.0),
        HeadReset(layers=0),
        ShrinkPerturb(amount=0.0),
        ShrinkPerturb(amount=0.0, toward="fresh"),
        ShrinkPerturb(amount=0.0, perturb=0.0, toward="fresh"),
        L2(strength=0.0),
        L2Init(strength=0.0),
        EarlyStop(1.0),
    ],
    ids=repr,
)
def test_with_strength_nothing_it_trains_as_none(method: Method, net: str) -> None:
    assert_same_run(make_run(replace(method), NETS[net]), plain_run(net))


@pytest.mark.parametrize(
    "method",
    [
        HareTortoise(decay=0.9, reset_every=5, first_reset=7),
        HareTortoise(decay=0.9, reset_every="3 epochs", first_reset=7),
        HareTortoise(decay=0.9, reset_every=None),
        SelfDistillation(decay=0.9, temperature=2.0),
        FullReset(),
        HeadReset(layers=1),
        ShrinkPerturb(amount=0.5),
        ShrinkPerturb(amount=0.5, toward="fresh"),
        L2(strength=0.1),
        L2Init(strength=0.1),
        EarlyStop(0.5),
    ],
    ids=repr,
)
def test_a_stopped_run_resumes_to_the_same_bits(method: Method, tmp_path: Path) -> None:
    whole, resumed = make_run(replace(method)), make_run(replace(method), trained=False)
    plan = CheckpointPlan(tmp_path / "tiny.pt", "tiny")
    for before, step in itertools.pairwise((0, 1, 5, 12, 13, 20)):
        stops = iter([False] * (step - before - 1) + [True])
        observer = Observer(stop=functools.partial(next, stops))
        with pytest.raises(Interrupted):
            make_run(replace(method), trained=False).train(plan, observer)
    resumed.train(plan)
    assert_same_run(resumed, whole)
    assert resumed.history.points == whole.history.points
    assert resumed.steps_taken == whole.steps_taken


@pytest.mark.parametrize(
    ("cls", "values", "sentence"),
    [
        (HareTortoise, {"decay": 1.5}, "decay = 1.5"),
        (HareTortoise, {"decay": -0.1}, "decay = -0.1"),
        (HareTortoise, {"buffers": "drop"}, "buffers = 'drop': it must be 'average' or 'copy'"),
        (HareTortoise, {"reset_every": 0}, "reset_every = 0: give 1 step or more"),
        (HareTortoise, {"reset_every": 2.5}, "reset_every = 2.5: give 1 step or more"),
        (HareTortoise, {"reset_every": True}, "reset_every = True: give 1 step or more"),
        (HareTortoise, {"reset_every": "often"}, "'often' is no interval; write steps"),
        (HareTortoise, {"reset_every": "10"}, "'10' is no interval"),
        (HareTortoise, {"first_reset": 0}, "first_reset = 0: give 1 step or more"),
        (HareTortoise, {"reset_every": None, "first_reset": 2}, "leave first_reset out"),
        (HareTortoise, {"optimizer_state": "forget"}, "optimizer_state = 'forget'"),
        (SelfDistillation, {"strength": -1.0}, "strength = -1.0"),
        (SelfDistillation, {"temperature": 0.0}, "temperature = 0.0"),
        (SelfDistillation, {"decay": 2.0}, "decay = 2.0"),
        (ShrinkPerturb, {"amount": 1.5}, "amount = 1.5: the share lies between 0 and 1"),
        (ShrinkPerturb, {"amount": -0.5}, "amount = -0.5"),
        (ShrinkPerturb, {"toward": "zero"}, "toward = 'zero': it must be 'fresh' or 'initial'"),
        (L2, {"strength": -1}, "strength = -1: a penalty is zero or more"),
        (L2Init, {"strength": -1}, "strength = -1: a penalty is zero or more"),
        (EarlyStop, {"fraction": -0.1}, "fraction = -0.1: a fraction lies between"),
        (EarlyStop, {"fraction": 1.1}, "fraction = 1.1: a fraction lies between"),
    ],
)
def test_values_it_cannot_take_are_refused(
    cls: type[Method], values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        cls(**values)
