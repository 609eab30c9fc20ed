"""A model of one method goes on with another: its weights are taken, and the state left out."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import HARE_TORTOISE, assert_equal, equal, hare, tortoise

PAIRS = [
    ("hare-tortoise", "ema"),
    ("hare-tortoise", "redo"),
    ("hare-tortoise", "hare-tortoise+redo"),
    ("hare-tortoise+redo", "hare-tortoise"),
    ("hare-tortoise", "switch-ema"),
    ("self-normalized-resets", "redo"),
    ("redo", "grama"),
    ("l2-init", "shrink-perturb"),
    ("shrink-perturb", "l2-init"),
    ("lawa", "continual-backprop"),
    ("lookahead", "lawa"),
    ("full-reset", "hare-tortoise"),
]


def written(make: Any, method: str, steps: int = 40, **settings: Any) -> Any:
    kwargs = {"plasticity": method, "plasticity_kwargs": settings}
    model = make("dqn", "PlasticMlpPolicy", steps, policy_kwargs=kwargs)
    model.policy.enter_phase(1 if steps else 0)
    return model


def unsigned(state: Any) -> dict[str, Any]:
    """The state as it was written before methods signed theirs."""
    return dict(copy.deepcopy(state))


def started(method: Any) -> dict[str, Any]:
    """A method's state where it starts from the present weights."""
    method.resync()
    return dict(copy.deepcopy(method.state_dict()))


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_another_method_starts_from_the_weights(
    before: str, after: str, make: Any, tmp_path: Path
) -> None:
    model = written(make, before)
    model.save(tmp_path / "model.zip")
    changed = {"policy_kwargs": {"net_arch": [8], "plasticity": after}}
    with pytest.warns(UserWarning, match="another method.*is left out.*start.* these weights"):
        loaded = type(model).load(
            tmp_path / "model.zip", env=model.get_env(), device="cpu", custom_objects=changed
        )
    assert equal(hare(loaded.policy, "q_net"), hare(model.policy, "q_net"))
    method = loaded.policy.methods["q_net"]
    found = repr(method.state_dict())
    assert found == repr(started(method))
    loaded.learn(10)


@pytest.mark.parametrize(
    "before", ["hare-tortoise", "self-normalized-resets", "lawa", "full-reset"]
)
def test_files_without_a_signature_are_told_by_names_and_shapes(before: str, make: Any) -> None:
    state = unsigned(written(make, before).policy.state_dict())
    same = written(make, before, steps=0).policy
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same.load_state_dict(state)
    assert_equal(unsigned(same.state_dict()), state)
    for after in ("ema", "redo", "hare-tortoise+redo", "continual-backprop"):
        other = written(make, after, steps=0).policy
        with pytest.warns(UserWarning, match=f"another method than '{after.replace('+', '.')}'"):
            other.load_state_dict(state)


def test_a_copy_of_other_tensors_starts_from_the_weights(make: Any) -> None:
    pytest.importorskip("sb3_contrib")
    from sb3_contrib import CrossQ

    def crossed(buffers: str) -> Any:
        kwargs = {"net_arch": [8], "plasticity_kwargs": {"decay": 0.9, "buffers": buffers}}
        settings: Any = {"learning_starts": 8, "batch_size": 8, "buffer_size": 100, "device": "cpu"}
        return CrossQ(HARE_TORTOISE, "Pendulum-v1", policy_kwargs=kwargs, **settings)

    saved, other = crossed("copy").learn(12).policy, crossed("average").policy
    which = "of 'hare-tortoise' with other hyperparameters"
    with pytest.warns(UserWarning, match=f"{which}.*which is left out"):
        other.load_state_dict(saved.state_dict())
    for part in ("actor", "critic"):
        assert equal(tortoise(other, part), hare(saved, part))
    whole, copied = crossed("average").learn(12).policy, crossed("copy").policy
    for state in (whole.state_dict(), unsigned(whole.state_dict())):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            copied.load_state_dict(state)
        slow = tortoise(copied, "critic")["qf0.1.weight"]
        assert torch.equal(slow, tortoise(whole, "critic")["qf0.1.weight"])
    with pytest.raises(RuntimeError, match="Missing key.*tortoise.qf0.0.ra_mean"):
        crossed("average").policy.load_state_dict(unsigned(saved.state_dict()))


def test_a_state_dict_holds_nothing_but_what_loading_takes_over(make: Any) -> None:
    """As stable-baselines3's own tests ask of every tensor: who wrote it is no tensor."""
    policy = make("dqn", HARE_TORTOISE, 40).policy
    before = copy.deepcopy(policy.state_dict())
    policy.load_state_dict({name: torch.rand_like(tensor) for name, tensor in before.items()})
    after = policy.state_dict()
    assert [*after] == [*before]
    assert not [name for name in before if torch.equal(before[name], after[name])]
