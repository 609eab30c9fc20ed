"""Penalties, projections and what takes the optimizer's place, on agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ht_bench.errors import UsageError
from ht_bench.methods.parseval import Parseval
from ht_bench.methods.recipe import get_recipe

from .conftest import assert_equal

METHODS = (
    "weight-clipping",
    "spectral-regularization",
    "wasserstein",
    "parseval",
    "upgd",
    "fire",
    "weight-decay",
    "clear-moments",
)


def trained(make: Any, algorithm: str, kind: str, method: str, values: dict[str, Any]) -> Any:
    kwargs = {"plasticity": method, "plasticity_kwargs": values}
    rarely = {"train_freq": 8} if algorithm == "dqn" else {"n_epochs": 1}
    model = make(algorithm, f"Plastic{kind}Policy", policy_kwargs=kwargs, **rarely)
    model.learn(32)
    model.policy.enter_phase(1)
    return model.learn(32, reset_num_timesteps=False)


def weights(model: Any) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in model.policy.parameters()]


@pytest.mark.parametrize(
    ("algorithm", "kind"), [("ppo", "Mlp"), ("dqn", "Cnn")], ids=["ppo", "dqn"]
)
def test_it_acts_on_agents_and_inert_it_is_as_none(make: Any, algorithm: str, kind: str) -> None:
    plain = weights(trained(make, algorithm, kind, "none", {}))
    for method in METHODS:
        recipe = get_recipe(method)
        assert recipe is not None
        acting = weights(trained(make, algorithm, kind, method, recipe.active))
        assert all(bool(torch.isfinite(tensor).all()) for tensor in acting), method
        assert not all(map(torch.equal, acting, plain)), method
        if recipe.inert is not None:
            inert = weights(trained(make, algorithm, kind, method, recipe.inert))
            assert all(map(torch.equal, inert, plain)), method


def test_of_towers_parseval_leaves_every_output(make: Any) -> None:
    model = make("ppo", "PlasticMlpPolicy", policy_kwargs={"plasticity": "parseval"})
    (method,) = model.policy.methods.values()
    assert isinstance(method, Parseval)
    assert [matrix.name for matrix in method._hidden] == [
        "mlp_extractor.policy_net.0.weight",
        "mlp_extractor.value_net.0.weight",
    ]


@pytest.mark.parametrize("method", ["spectral-decoupling", "normalize-and-project"])
def test_what_an_agents_loop_lacks_is_refused(make: Any, method: str) -> None:
    with pytest.raises(UsageError, match=f"'{method}' needs the supervised loop"):
        make("ppo", "PlasticMlpPolicy", policy_kwargs={"plasticity": method})


@pytest.mark.parametrize("method", ["spectral-regularization", "wasserstein", "upgd"])
def test_a_saved_agent_goes_on_alike(make: Any, tmp_path: Path, method: str) -> None:
    recipe = get_recipe(method)
    assert recipe is not None
    model = trained(make, "ppo", "Mlp", method, recipe.active)
    model.save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent", env=model.get_env())
    (mine,), (theirs,) = model.policy.methods.values(), loaded.policy.methods.values()
    (kind,) = mine.state_dict()
    assert_equal(mine.state_dict()[kind], theirs.state_dict()[kind])
    for agent in (model, loaded):
        for parameter in agent.policy.parameters():
            parameter.grad = torch.full_like(parameter, 0.1)
        agent.policy.optimizer.step()
    assert all(map(torch.equal, weights(model), weights(loaded)))
