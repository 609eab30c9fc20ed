"""The Method contract, checked on small networks: each check names what is broken."""

from __future__ import annotations

import copy
import dataclasses
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.networks.stacking import is_stacked
from ht_bench.training.class_checks import check_class
from ht_bench.training.program import (
    BOUNDARY,
    EPOCH_STEPS,
    STEPS,
    Make,
    Program,
    convolutional_net,
    lone,
    stack,
)
from ht_bench.training.tape import Tapes


def check(method: Method, make_module: Callable[[], nn.Module] | None = None) -> None:
    """Check an unattached method as `ht_bench.testing.check_method` says it does.

    Raises AssertionError with one sentence that names the contract that is broken.
    """
    check_class(type(method))
    _check_hyperparameters(method)
    for make in [make_module] if make_module else [convolutional_net, stack]:
        _check_attach(method, make)
        _check_equal_runs(method, make)
        _check_boundary(method, make)
        _check_evaluating(method, make)
        _check_resume(method, make)
        _check_captured(method, make)
    if make_module is None and not method.network:
        _check_mates(method)


def require(condition: bool, sentence: str) -> None:
    """Raise AssertionError with the sentence where the condition does not hold."""
    if not condition:
        raise AssertionError(sentence + ".")


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and torch.equal(first, second)
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(_equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_equal, first, second))
    return bool(first == second)


def _name(method: Method) -> str:
    return type(method).__name__


def _check_hyperparameters(method: Method) -> None:
    values = {f.name: getattr(method, f.name) for f in dataclasses.fields(method) if f.init}
    try:
        restored = json.loads(json.dumps(values))
    except TypeError as error:
        raise AssertionError(f"{_name(method)}'s hyperparameters are not JSON: {error}.") from error
    same = restored == json.loads(json.dumps(values)) and restored.keys() == values.keys()
    require(same, f"{_name(method)}'s hyperparameters change when written as JSON")


def _check_attach(method: Method, make: Make) -> None:
    program = Program(method, make)
    require(
        program.method.phase_length == BOUNDARY,
        f"{_name(method)}.enter_phase does not call super().enter_phase; act in on_phase, or do",
    )
    try:
        program.method.attach(program.module, program.optimizer)
    except UsageError:
        pass
    else:
        raise AssertionError(f"{_name(method)} lets itself be attached twice; call super().attach.")
    network = {t.untyped_storage().data_ptr() for t in program.module.state_dict().values()}
    held = {t.untyped_storage().data_ptr() for t in _tensors(program.method.state_dict())}
    require(not network & held, f"{_name(method)} shares storage with the network; clone instead")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor) and value.numel():
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def _check_equal_runs(method: Method, make: Make) -> None:
    first, second = Program(method, make).train(STEPS), Program(method, make)
    random_state = torch.get_rng_state()
    second.train(STEPS)
    require(
        torch.equal(random_state, torch.get_rng_state()),
        f"{_name(method)} draws from torch's own generator; draw from self.generator or "
        "self.fresh()",
    )
    weights = first.snapshot()
    finite = all(bool(t.isfinite().all()) for t in weights.values())
    require(finite, f"{_name(method)} makes weights that are not finite within {STEPS} steps")
    same = _equal(weights, second.snapshot())
    require(same, f"two runs of {_name(method)} with equal seeds differ")


def _check_boundary(method: Method, make: Make) -> None:
    program = Program(method, make)
    identities = {id(parameter) for parameter in program.module.parameters()}
    program.train(BOUNDARY + 1)
    optimized = {id(p) for group in program.optimizer.param_groups for p in group["params"]}
    now = {id(parameter) for parameter in program.module.parameters()}
    require(
        now == identities and now <= optimized,
        f"{_name(method)} replaces parameters at a boundary; change them in place",
    )
    before = program.snapshot()
    program.train(BOUNDARY + 2)
    for name, parameter in program.module.named_parameters():
        moved = method.may_rest or not torch.equal(before[name], parameter)
        require(moved, f"{_name(method)}: '{name}' does not train after a boundary")


def _check_evaluating(method: Method, make: Make) -> None:
    program = Program(method, make).train(BOUNDARY + 2)
    weights, modes, state = program.snapshot(), program.modes(), copy.deepcopy(program.state())
    with program.method.evaluating() as evaluated, torch.no_grad():
        evaluated(program.held[0])
        quiet = not any(child.training for child in evaluated.modules())
    name = f"{_name(method)}.evaluating"
    require(quiet, f"{name} does not put the network in evaluation mode")
    restored = _equal(weights, program.snapshot())
    require(restored, f"{name} does not restore weights and buffers exactly")
    require(modes == program.modes(), f"{name} does not restore training modes")
    unchanged = _equal(state, program.state())
    require(unchanged, f"{name} changes the method's or the optimizer's state")


def _check_resume(method: Method, make: Make) -> None:
    whole = Program(method, make).train(STEPS)
    for stop in (1, EPOCH_STEPS + 1, BOUNDARY + 1, STEPS - 1):
        first, second = Program(method, make).train(stop), Program(method, make)
        second.restore(first)
        second.train(STEPS)
        require(
            _equal(whole.snapshot(), second.snapshot())
            and _equal(whole.method.state_dict(), second.method.state_dict()),
            f"{_name(method)} saved at step {stop} and restored does not go on alike; "
            "put what it keeps into state_dict",
        )


def _check_captured(method: Method, make: Make) -> None:
    if not method.captures:
        return
    plain = Program(method, make).train(STEPS)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*cannot be captured")
            captured = Program(method, make, graphs=Tapes()).train(STEPS)
    except UserWarning as warning:
        raise AssertionError(f"{_name(method)}: {warning}") from warning
    require(
        _equal(plain.snapshot(), captured.snapshot()),
        f"{_name(method)} trains otherwise when its steps are captured; decide and count in `due`, "
        "`act` and `count_steps`, or set capturable = False",
    )


def _check_mates(method: Method) -> None:
    """A seed's weights, judged ones too, are the same whatever its mates and its slot."""
    first, second = (_ends(method, stack, seeds, 1) for seeds in ((1, 2, 3), (4, 1, 5)))
    require(
        _close(first, second, 1e-5),
        f"{_name(method)} mixes the seeds of a stack; reduce over trailing dimensions",
    )
    require(
        _close(first, _ends(method, lone, (1,), 1), 1e-4),
        f"{_name(method)} treats a seed of a stack otherwise than a lone network; a stack's layers "
        "are no nn.Linear, and its tensors have the seeds as their first dimension (self.stacked)",
    )


def _ends(method: Method, make: Make, seeds: tuple[int, ...], seed: int) -> list[Tensor]:
    """Return a seed's trained and judged weights at the end, past a boundary."""
    program = Program(method, make, seeds).train(STEPS)
    trained = [*program.snapshot().values()]
    with program.method.evaluating() as judged:
        ends = [*trained, *(tensor.clone() for tensor in judged.state_dict().values())]
    return [tensor[seeds.index(seed)] for tensor in ends] if is_stacked(program.module) else ends


def _close(first: list[Tensor], second: list[Tensor], within: float) -> bool:
    return all(torch.allclose(x, y, atol=within) for x, y in zip(first, second, strict=True))
