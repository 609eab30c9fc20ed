"""Weights from elsewhere: stock checkpoints, parts of them, other methods', earlier versions'."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ht_bench.sb3.state_tensors import from_tensors, to_tensors

from .conftest import (
    HARE_TORTOISE,
    OFF_POLICY,
    apart,
    assert_equal,
    clone,
    equal,
    hare,
    observations,
    state,
    tortoise,
    two_layers,
)

METHOD = {"plasticity_kwargs": {"decay": 0.75, "reset_every": 7}}


@pytest.fixture(scope="module")
def stocks(make: Any) -> Any:
    """Return stock(algorithm): a stock agent trained a little, the same for all tests."""
    trained: dict[str, Any] = {}

    def stock(algorithm: str) -> Any:
        if algorithm not in trained:
            trained[algorithm] = make(algorithm, "MlpPolicy", 60, seed=5)
        return trained[algorithm]

    return stock


@pytest.fixture
def _said() -> Iterator[None]:
    with pytest.warns(UserWarning, match="no state of 'hare-tortoise': hare and tortoise both"):
        yield


def assert_starts_from(model: Any, stock: Any) -> None:
    """Hare, tortoise and target hold the stock agent's weights, and the clock stands at 0."""
    seen = observations(model)
    expected = stock.policy.predict(seen, deterministic=True)[0].tolist()
    for which in ("hare", "tortoise"):
        with model.policy.acting_as(which):
            assert model.policy.predict(seen, deterministic=True)[0].tolist() == expected
    for part in model.policy.parts:
        weights = clone(getattr(stock.policy, part.name, stock.policy).named_parameters())
        assert equal(hare(model.policy, part.name), weights)
        assert equal(tortoise(model.policy, part.name), weights)
        if part.target:
            assert equal(clone(getattr(model, part.target).named_parameters()), weights)
        clock = model.policy.methods[part.name].state_dict()
        assert (clock["steps"], clock["has_reset"], clock["held"]) == (0, False, False)


# ---- stock checkpoints ----


@pytest.mark.usefixtures("_said")
def test_a_stock_checkpoint_goes_on_with_hare_and_tortoise(
    algorithm: str, make: Any, stocks: Any, tmp_path: Path
) -> None:
    stock = stocks(algorithm)
    stock.save(tmp_path / "stock.zip")
    plastic = type(make(algorithm, HARE_TORTOISE).policy)
    changes = {"policy_class": plastic, "policy_kwargs": {**stock.policy_kwargs, **METHOD}}
    model = type(stock).load(
        tmp_path / "stock.zip", env=stock.get_env(), device="cpu", custom_objects=changes
    )
    assert_starts_from(model, stock)
    for mine in model.policy.parts:
        owner = getattr(stock.policy, mine.name, stock.policy)
        theirs = owner if hasattr(owner, "optimizer") else stock.policy
        assert len(mine.optimizer.state) == len(theirs.optimizer.state) > 0
    model.learn(40)
    clocks = [method.state_dict() for method in model.policy.methods.values()]
    assert all(clock["steps"] or clock["has_reset"] for clock in clocks)


@pytest.mark.usefixtures("_said")
@pytest.mark.parametrize("how", ["file", "dict", "policy"])
def test_a_trained_policy_takes_stock_weights(
    algorithm: str, how: str, make: Any, stocks: Any, tmp_path: Path
) -> None:
    stock = stocks(algorithm)
    model = make(algorithm, HARE_TORTOISE, 30, policy_kwargs=METHOD)
    if how == "file":
        stock.save(tmp_path / "stock.zip")
        model.set_parameters(tmp_path / "stock.zip", device="cpu")
    elif how == "dict":
        model.set_parameters(stock.get_parameters())
    else:
        model.policy.load_state_dict(stock.policy.state_dict())
    assert_starts_from(model, stock)


def test_a_policys_file_alone_is_taken(make: Any, stocks: Any, tmp_path: Path) -> None:
    stock = stocks("dqn")
    stock.policy.save(str(tmp_path / "stock.pt"))
    with pytest.warns(UserWarning, match="both start from these weights, and its clock from 0"):
        policy = type(make("dqn", HARE_TORTOISE).policy).load(str(tmp_path / "stock.pt"), "cpu")
    assert equal(tortoise(policy, "q_net"), clone(stock.policy.q_net.named_parameters()))


def test_a_value_network_alone_takes_weights(make: Any, stocks: Any) -> None:
    stock, model = stocks("dqn"), make("dqn", HARE_TORTOISE, 40, policy_kwargs=METHOD)
    model.q_net.load_state_dict(stock.q_net.state_dict())
    assert_starts_from(model, stock)


def test_a_pretrained_layer_is_taken_by_both(make: Any) -> None:
    model = make("ppo", HARE_TORTOISE, 40, policy_kwargs=METHOD)
    net = model.policy.mlp_extractor.policy_net
    given = {name: torch.randn_like(tensor) for name, tensor in net.state_dict().items()}
    net.load_state_dict(given)
    for weights in (hare(model.policy, "policy"), tortoise(model.policy, "policy")):
        for name, tensor in given.items():
            assert torch.equal(weights[f"mlp_extractor.policy_net.{name}"], tensor)


def test_a_part_of_an_agent_leaves_the_rest_alone(make: Any, stocks: Any) -> None:
    stock, model = stocks("sac"), make("sac", HARE_TORTOISE, 40, policy_kwargs=METHOD)
    apart(model.policy)
    critic, before = tortoise(model.policy, "critic"), hare(model.policy, "critic")
    actor = {k: v for k, v in stock.policy.state_dict().items() if k.startswith("actor.")}
    with pytest.warns(UserWarning, match="no state of"):
        model.set_parameters({"policy": actor}, exact_match=False)
    assert equal(tortoise(model.policy, "actor"), clone(stock.actor.named_parameters()))
    assert equal(tortoise(model.policy, "critic"), critic)
    assert equal(hare(model.policy, "critic"), before)


def test_a_target_takes_weights_and_is_the_tortoise(make: Any, stocks: Any) -> None:
    stock, model = stocks("dqn"), make("dqn", HARE_TORTOISE, 40, policy_kwargs=METHOD)
    before = hare(model.policy, "q_net")
    model.q_net_target.load_state_dict(stock.q_net.state_dict())
    assert equal(tortoise(model.policy, "q_net"), clone(stock.q_net.named_parameters()))
    assert equal(hare(model.policy, "q_net"), before)


# ---- what does not fit ----


def test_state_that_is_cut_or_of_another_shape_is_refused_as_torch_does(make: Any) -> None:
    policy = make("dqn", HARE_TORTOISE, 40, policy_kwargs=METHOD).policy
    whole = copy.deepcopy(policy.state_dict())
    steps = policy.methods["q_net"].state_dict()["steps"]
    cut = {k: v for k, v in whole.items() if k != "plasticity.q_net.clock"}
    with pytest.raises(RuntimeError, match='Missing key.*"plasticity.q_net.clock"'):
        policy.load_state_dict(cut)
    policy.load_state_dict({k: torch.rand_like(v) for k, v in cut.items()}, strict=False)
    assert policy.methods["q_net"].state_dict()["steps"] == steps
    name = "plasticity.q_net.tortoise.q_net.2.bias"
    with pytest.raises(RuntimeError, match=f"size mismatch for {name}"):
        policy.load_state_dict({**whole, name: whole[name][:1]})


@pytest.mark.parametrize("method", ["none", "full-reset", "l2-init"])
def test_another_methods_state_is_left_out(method: str, make: Any) -> None:
    saved = make("dqn", HARE_TORTOISE, 40, policy_kwargs=METHOD).policy
    policy = make("dqn", "PlasticMlpPolicy", policy_kwargs={"plasticity": method}).policy
    with pytest.warns(UserWarning, match=f"another method than '{method}', which is left out"):
        policy.load_state_dict(saved.state_dict())
    assert equal(hare(policy, "q_net"), hare(saved, "q_net"))


def test_other_hyperparameters_go_on_from_the_same_state(make: Any, tmp_path: Path) -> None:
    model = make("dqn", HARE_TORTOISE, 40, policy_kwargs=METHOD)
    model.save(tmp_path / "model.zip")
    kwargs = {**model.policy_kwargs, "plasticity_kwargs": {"decay": 0.5, "reset_every": 9}}
    loaded = type(model).load(
        tmp_path / "model.zip", device="cpu", custom_objects={"policy_kwargs": kwargs}
    )
    assert_equal(dict(loaded.policy.state_dict()), dict(model.policy.state_dict()))
    assert loaded.policy.methods["q_net"].decay == 0.5


# ---- what a state holds ----


def test_a_method_without_state_adds_nothing(algorithm: str, make: Any) -> None:
    stock = make(algorithm, "MlpPolicy", 30).policy.state_dict()
    assert make(algorithm, "PlasticMlpPolicy", 30).policy.state_dict().keys() == stock.keys()


@pytest.mark.parametrize("method", ["hare-tortoise", "ema", "l2-init", "full-reset"])
def test_a_state_holds_tensors_after_the_stock_names(
    algorithm: str, method: str, make: Any
) -> None:
    stock = list(make(algorithm, "MlpPolicy").policy.state_dict())
    kwargs = {"plasticity": method}
    policy = make(algorithm, "PlasticMlpPolicy", 30, policy_kwargs=kwargs).policy
    policy.enter_phase(1)
    found = policy.state_dict()
    assert all(isinstance(tensor, Tensor) for tensor in found.values())
    assert list(found)[: len(stock)] == stock
    assert all(name.startswith("plasticity.") for name in list(found)[len(stock) :])
    names = [name for name, _ in (*policy.named_parameters(), *policy.named_buffers())]
    assert not any("plasticity" in name for name in names)


def test_a_state_loads_inside_another_module(make: Any) -> None:
    policies = [make("dqn", HARE_TORTOISE, n, policy_kwargs=METHOD).policy for n in (40, 0)]
    wrapped = [torch.nn.ModuleDict({"policy": policy}) for policy in policies]
    wrapped[1].load_state_dict(wrapped[0].state_dict())
    assert_equal(dict(policies[1].state_dict()), dict(policies[0].state_dict()))


# ---- earlier versions ----


def as_before(policy: Any) -> dict[str, Any]:
    """The state as version 0.1 wrote it, with a target behind a stand-in."""
    weights = {}
    for name, tensor in state(policy).items():
        weights[name.replace("_target.", "_target.decoy.")] = tensor
    parts = {name: method.checkpoint() for name, method in policy.methods.items()}
    extra = {"method": policy.plasticity_name, "hyperparameters": "", "parts": parts}
    return {**weights, "_extra_state": extra}


def test_models_of_earlier_versions_load(algorithm: str, make: Any) -> None:
    policy = make(algorithm, HARE_TORTOISE, 36, policy_kwargs=METHOD).policy
    old = copy.deepcopy(as_before(policy))
    other = make(algorithm, HARE_TORTOISE, policy_kwargs=METHOD).policy
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.load_state_dict(old)
    assert_equal(dict(other.state_dict()), dict(policy.state_dict()))
    with pytest.warns(UserWarning, match="another method than 'full-reset', which is left out"):
        make(
            algorithm, "PlasticMlpPolicy", policy_kwargs={"plasticity": "full-reset"}
        ).policy.load_state_dict(old)


# ---- a target network that is the tortoise ----


@pytest.mark.parametrize("algorithm", OFF_POLICY)
def test_a_target_is_of_the_algorithms_own_class(algorithm: str, make: Any) -> None:
    model, stock = (make(algorithm, name) for name in (HARE_TORTOISE, "MlpPolicy"))
    for part in model.policy.parts:
        if not part.target:
            continue
        mine, theirs = getattr(model, part.target), getattr(stock, part.target)
        assert isinstance(mine, type(theirs))
        assert list(mine.state_dict()) == list(theirs.state_dict())
        assert mine.features_extractor is not part.module.features_extractor
        assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()]


def values(model: Any) -> tuple[Tensor, Tensor]:
    seen = torch.as_tensor(observations(model))
    return model.q_net_target(seen), two_layers(tortoise(model.policy, "q_net"), "q_net", seen)


def test_what_is_written_into_a_targets_weights_is_what_it_computes(make: Any) -> None:
    model = make("dqn", HARE_TORTOISE, 40, policy_kwargs=METHOD)
    target = model.q_net_target

    def rebind() -> None:
        for parameter in target.parameters():
            parameter.data = torch.full_like(parameter, 0.5)

    def fill() -> None:
        for parameter in target.parameters():
            parameter.data.fill_(0.25)

    def vector() -> None:
        count = sum(parameter.numel() for parameter in target.parameters())
        target.load_from_vector(torch.linspace(-1, 1, count).numpy())

    def assign() -> None:
        named = {name: torch.randn_like(t) for name, t in target.state_dict().items()}
        target.load_state_dict(named, assign=True)

    def one() -> None:
        target.q_net[2].bias.data.zero_()

    for write in (rebind, fill, vector, assign, one):
        write()
        computed, expected = values(model)
        assert torch.allclose(computed, expected, atol=1e-6), write.__name__
        assert_equal(clone(target.named_parameters()), tortoise(model.policy, "q_net"))
    model.learn(40, reset_num_timesteps=False)  # it goes on as the tortoise
    computed, expected = values(model)
    assert torch.allclose(computed, expected, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_a_target_follows_to_another_precision(kind: torch.dtype, make: Any) -> None:
    policy = make("dqn", HARE_TORTOISE, 40, policy_kwargs=METHOD).policy
    policy.to(kind)
    policy.q_net_target.keep_up()  # as its forward does; SB3's own takes float32 alone
    for name, tensor in policy.q_net_target.named_parameters():
        assert tensor.dtype == kind
        slow = policy.methods["q_net"].tortoise.tensors()[name]
        assert torch.equal(tensor, slow.to(kind))


# ---- any method's state ----

STATES: list[dict[str, Any]] = [
    {},
    {"steps": 7, "reset": True, "rate": 0.1, "phase": None, "slow": {"a.b": torch.randn(3)}},
    {"kept": [{"w": torch.randn(2, 2)}, {"w": torch.randn(2, 2)}], "at": [1, 2], "how": "mean"},
    {"by unit": {0: torch.ones(1), 1: torch.zeros(1)}, "last": None},
]


@pytest.mark.parametrize("state", STATES)
def test_any_methods_state_comes_back_from_tensors(state: dict[str, Any]) -> None:
    tensors = to_tensors(state, torch.device("cpu"))
    assert all(isinstance(tensor, Tensor) for tensor in tensors.values())
    like = copy.deepcopy(state) | ({"kept": [], "at": []} if "kept" in state else {})
    found = from_tensors(tensors, like)
    assert repr(found) == repr(state)
