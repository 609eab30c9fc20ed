"""What an agent's loop cannot serve is refused in a sentence; a method may be given twice."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import pytest
import torch
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3

from ht_bench.errors import Unsuitable, UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.sb3 import find_algorithm
from ht_bench.sb3.parts import parts_of

from .conftest import assert_equal, clone

contrib = pytest.importorskip("sb3_contrib")

SUPPORTED = {"ppo": PPO, "a2c": A2C, "dqn": DQN, "sac": SAC, "td3": TD3, "ddpg": DDPG}
CONTRIB = ("QRDQN", "TQC", "CrossQ", "TRPO", "MaskablePPO", "RecurrentPPO")
SUPPORTED |= {name.lower(): getattr(contrib, name) for name in CONTRIB}
KINDS = ("Mlp", "Cnn", "MultiInput")


class NoOptimizer:
    """Looks like an optimizer and can be hooked into by nobody."""

    def __init__(self, parameters: Any, lr: float) -> None:
        self.param_groups = [{"params": list(parameters), "lr": lr}]

    def step(self) -> None:
        """Do nothing."""


def refused(make: Any, algorithm: str, sentence: str, **policy_kwargs: Any) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        make(algorithm, "PlasticMlpPolicy", policy_kwargs=policy_kwargs)
    assert "\n" not in str(caught.value)


# ---- policies ----


@pytest.mark.parametrize("cls", [SAC, PPO])
def test_dict_observations_ask_for_the_policy_that_reads_them(cls: Any) -> None:
    env = gymnasium.make("Pendulum-v1")
    space = gymnasium.spaces.Dict({"all": env.observation_space})
    asked = gymnasium.wrappers.TransformObservation(env, lambda seen: {"all": seen}, space)
    with pytest.raises(UsageError, match="takes no dict observations; use 'HareTortoiseMultiInput"):
        cls("HareTortoiseMlpPolicy", asked)
    assert cls("HareTortoiseMultiInputPolicy", asked).policy.has_tortoise


def test_a_mistyped_keyword_is_named_and_others_are_the_stock_policys() -> None:
    with pytest.raises(UsageError, match="no policy takes 'plastcity'. Did you mean 'plasticity'"):
        PPO("PlasticMlpPolicy", "CartPole-v1", policy_kwargs={"plastcity": "l2"})
    with pytest.raises(TypeError, match="net_archs"):
        PPO("PlasticMlpPolicy", "CartPole-v1", policy_kwargs={"net_archs": [3]})


@pytest.mark.parametrize("method", ["hare-tortoise", HareTortoise, "hare-tortoise+l2"])
def test_a_hyperparameter_outside_plasticity_kwargs_is_told_its_place(method: Any) -> None:
    given = {"decay": 0.99, "reset_every": 200}
    sentence = r"no policy takes 'decay'. It is of 'hare-.*put it into plasticity_kwargs=dict\(dec"
    with pytest.raises(UsageError, match=sentence):
        PPO("PlasticMlpPolicy", "CartPole-v1", policy_kwargs={"plasticity": method, **given})


@pytest.mark.parametrize("kwargs", [{"strength": 1}, {"optimizer_kwargs": {"decay": 1}}])
def test_a_keyword_that_is_not_the_methods_is_refused_by_its_owner(kwargs: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        PPO("HareTortoiseMlpPolicy", "CartPole-v1", policy_kwargs=kwargs)


@pytest.mark.parametrize("name", ["HareTortoisMlpPolicy", "HareTortoisePolicy", "hare-tortoise"])
@pytest.mark.parametrize("cls", [PPO, DDPG, contrib.QRDQN])
def test_a_misspelled_policy_is_suggested(name: str, cls: Any) -> None:
    sentence = f"{cls.__name__} has no policy '{name}'. Did you mean 'HareTortoiseMlpPolicy'?"
    with pytest.raises(UsageError, match=sentence):
        cls(name, "CartPole-v1")


def test_other_unknown_policies_are_refused_by_their_algorithm() -> None:
    for name in ("MlpPolcy", "MlpLstmPolicy", "MultiInputLstmPolicy", "TransformerPolicy"):
        with pytest.raises(ValueError, match=f"^Policy {name} unknown$") as caught:
            PPO(name, "CartPole-v1")
        assert type(caught.value) is ValueError
    assert "HareTortoisMlpPolicy" not in PPO.policy_aliases  # who asks without making one
    assert DDPG.policy_aliases is TD3.policy_aliases


# ---- algorithms ----


def test_algorithms_are_found_by_name() -> None:
    assert {name: find_algorithm(name) for name in SUPPORTED} == SUPPORTED


def test_an_algorithm_of_another_name_is_refused() -> None:
    listed = "Supported: ppo, a2c, dqn, sac, td3, ddpg, qrdqn, tqc, crossq, trpo, maskableppo"
    with pytest.raises(UsageError, match=f"'qr-dqn' is not.* Did you mean 'qrdqn'\\? {listed}"):
        find_algorithm("qr-dqn")
    with pytest.raises(UsageError, match=f"'impala' is not supported\\. {listed}"):
        find_algorithm("impala")
    for given in (PPO, None, ["ppo"]):
        with pytest.raises(UsageError, match="give the algorithm's name, of ppo, a2c"):
            find_algorithm(given)  # type: ignore[arg-type]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(UsageError, match=r"not installed: pip install 'ht-bench\[contrib\]'"):
        find_algorithm("qrdqn")
    assert find_algorithm("dqn") is DQN


@pytest.mark.parametrize("prefix", ["HareTortoise", "Plastic"])
@pytest.mark.parametrize("kind", KINDS)
def test_policies_that_an_algorithm_cannot_have_say_so(kind: str, prefix: str) -> None:
    name = f"{prefix}{kind}Policy"
    with pytest.raises(UsageError, match="ARS has no optimizer .*use PPO, .*RecurrentPPO"):
        contrib.ARS(name, "CartPole-v1")
    with pytest.raises(UsageError, match=f"policies are recurrent: {prefix}{kind}LstmPolicy"):
        contrib.RecurrentPPO(name, "CartPole-v1")


def test_stock_policies_of_those_algorithms_are_left_alone() -> None:
    model = contrib.ARS("MlpPolicy", "CartPole-v1", device="cpu")
    assert type(model.policy).__module__.startswith("sb3_contrib.")


def test_a_policy_of_unknown_parts_is_refused() -> None:
    class Table(torch.nn.Module):
        pass

    with pytest.raises(
        UsageError, match="Table is of an algorithm that is not supported.*TD3.*TQC"
    ):
        parts_of(Table())  # type: ignore[arg-type]


# ---- methods ----


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("self-distillation", "adds to the loss"),
        ("early-stop", "shortens phases"),
        ("layer-norm", r"changes a task's \[net\] table"),
        ("crelu", r"changes a task's \[net\] table"),
    ],
)
def test_methods_of_the_supervised_loop_are_refused(
    algorithm: str, method: str, reason: str, make: Any
) -> None:
    sentence = f"'{method}' needs the supervised loop: it {reason}.*`ht-bench run`"
    refused(make, algorithm, sentence, plasticity=method)
    with pytest.raises(Unsuitable):
        make(algorithm, "PlasticMlpPolicy", policy_kwargs={"plasticity": method})


@pytest.mark.parametrize("written", ["10 epochs", "1 epoch", "0.5 epochs"])
def test_an_interval_in_epochs_is_refused(algorithm: str, written: str, make: Any) -> None:
    sentence = f"'{written}': an agent has no epochs.*plasticity_kwargs=dict\\(reset_every="
    kwargs = {"plasticity_kwargs": {"reset_every": written}}
    refused(make, algorithm, f"reset_every = {sentence}", plasticity="hare-tortoise", **kwargs)


def test_a_method_of_another_name_is_refused(algorithm: str, make: Any) -> None:
    sentence = "Unknown method 'hare-tortose'. Did you mean 'hare-tortoise'?"
    refused(make, algorithm, sentence, plasticity="hare-tortose")
    refused(make, algorithm, "Unknown method 'zzz'.*ht-bench list methods", plasticity="zzz")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"decy": 0.9}, "'hare-tortoise' has no hyperparameter 'decy'. Did you mean 'decay'?"),
        ({"decay": 1.5}, "decay = 1.5: a decay lies between 0 and 1"),
        ({"decay": "fast"}, "decay = 'fast': give a number from 0 to 1"),
        ({"reset_every": 0}, "reset_every = 0: give 1 step or more"),
    ],
)
def test_hyperparameters_a_method_does_not_take_are_refused(
    given: dict[str, Any], sentence: str, make: Any
) -> None:
    for chosen in ("hare-tortoise", HareTortoise, HareTortoise()):
        refused(make, "dqn", sentence, plasticity=chosen, plasticity_kwargs=given)


def test_hyperparameters_without_a_method_or_a_name_are_refused(make: Any) -> None:
    sentence = "'none' has no hyperparameter 'decay', nor any.*plasticity=\"hare-tortoise\""
    refused(make, "dqn", sentence, plasticity_kwargs={"decay": 0.9})
    refused(make, "dqn", r"plasticity_kwargs = \[0.9\]; give hyper", plasticity_kwargs=[0.9])


@pytest.mark.parametrize("given", [5, 0.9, ["l2"], {"l2": 1}, object, torch.nn.Linear])
def test_what_is_no_method_is_refused(given: Any, make: Any) -> None:
    refused(make, "dqn", "not a subclass of ht_bench.Method", plasticity=given)


@pytest.mark.parametrize("method", ["none", "hare-tortoise"])
def test_what_is_no_optimizer_is_refused(algorithm: str, method: str, make: Any) -> None:
    sentence = "needs a torch.optim.Optimizer.*NoOptimizer is not one"
    refused(make, algorithm, sentence, plasticity=method, optimizer_class=NoOptimizer)


@pytest.mark.parametrize("algorithm", ["sac", "td3"])
@pytest.mark.parametrize("method", ["hare-tortoise", "l2-init", "full-reset"])
def test_shared_features_are_refused(algorithm: str, method: str, make: Any) -> None:
    def share(method: str, shared: bool) -> None:
        kwargs = {"plasticity": method, "share_features_extractor": shared}
        make(algorithm, "PlasticCnnPolicy", buffer_size=10, policy_kwargs=kwargs)

    sentence = "share_features_extractor=True: actor and critic .* leave it at False"
    with pytest.raises(UsageError, match=sentence):
        share(method, True)
    share(method, False)
    share("none", True)


@pytest.mark.parametrize("algorithm", ["sac", "td3"])
def test_shared_features_without_weights_are_served(algorithm: str, make: Any) -> None:
    kwargs = {"share_features_extractor": True}
    policy = make(algorithm, "HareTortoiseMlpPolicy", policy_kwargs=kwargs).policy
    assert list(policy.methods) == ["actor", "critic"]


# ---- a method given twice ----


@pytest.mark.parametrize("given", ["instance", "class", "name"])
def test_one_method_serves_two_models(algorithm: str, given: str, make: Any) -> None:
    settings = {"decay": 0.5, "reset_every": 3}
    instance = HareTortoise(**settings)
    kwargs: dict[str, Any] = {
        "instance": {"plasticity": instance},
        "class": {"plasticity": HareTortoise, "plasticity_kwargs": settings},
        "name": {"plasticity": "hare-tortoise", "plasticity_kwargs": settings},
    }[given]
    models = [make(algorithm, "PlasticMlpPolicy", policy_kwargs=kwargs) for _ in range(2)]
    attached: list[Method] = [m for model in models for m in model.policy.methods.values()]
    assert len(set(map(id, attached))) == len(attached) == 2 * len(models[0].policy.parts)
    for method in attached:
        assert type(method) is HareTortoise and method is not instance
        assert (method.decay, method.reset_every) == (0.5, 3)
    assert not hasattr(instance, "module")  # it is as free as before
    other = models[1].policy.methods[models[1].policy.parts[0].name]
    before = clone(other.tortoise.tensors())
    models[0].learn(30)
    assert_equal(other.tortoise.tensors(), before)
    assert all(method.state_dict()["has_reset"] for method in models[0].policy.methods.values())
    assert not other.state_dict()["has_reset"]


def test_settings_beside_an_instance_change_it_for_this_policy(make: Any) -> None:
    instance = HareTortoise(decay=0.5)
    kwargs = {"plasticity": instance, "plasticity_kwargs": {"decay": 0.75}}
    (method,) = make("dqn", "PlasticMlpPolicy", policy_kwargs=kwargs).policy.methods.values()
    assert (method.decay, instance.decay) == (0.75, 0.5)
