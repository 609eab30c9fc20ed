"""Hidden units: found where they are, with the rows and columns that are theirs, else refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ht_bench.errors import UsageError
from ht_bench.networks import build
from ht_bench.networks.units import Units, columns, features_of, find_units


def layers_of(module: nn.Module) -> list[str]:
    return [group.layer for group in find_units(module)]


def silence(module: nn.Module, group: Units, unit: int, seed: int | None) -> None:
    """Zero the columns that read a unit."""
    with torch.no_grad():
        for outgoing in group.outgoing:
            weight = module.get_submodule(outgoing.layer).get_parameter("weight")
            mask = torch.zeros(group.count, dtype=torch.bool)
            if seed is not None:
                mask = mask.repeat(len(weight), 1)
            mask[(seed, unit) if seed is not None else unit] = True
            view, mine = columns(outgoing, mask, weight.detach())
            view.masked_fill_(mine, 0)


SMALL = {"mlp": {"hidden": [12, 8]}, "cnn": {"channels": [4, 6], "hidden": [8]}}
STYLES = [
    {"activation": activation, "linear_norm": norm}
    for activation in ("relu", "crelu")
    for norm in ("none", "layer", "batch")
]


def shaken(group: Units, output: Tensor, unit: int, stacked: bool) -> Tensor:
    """The output with one unit's features replaced by other numbers, of every seed."""
    changed = output.clone()
    view, _ = features_of(group, changed, stacked)
    view[..., unit] += 3
    return changed


def differs(net: nn.Module, images: Tensor, group: Units, unit: int) -> Tensor:
    """Whether the outputs depend on what a unit puts out, [seeds]; a lone network is one."""
    stacked = bool(getattr(net, "stacked", False))

    def shake(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return shaken(group, output, unit, stacked)

    with torch.no_grad():
        before = net(images)
        handle = net.get_submodule(group.activation).register_forward_hook(shake)
        after = net(images)
        handle.remove()
    away = (before - after).abs()
    return (away.flatten(1) if stacked else away.view(1, -1)).amax(1) > 1e-4


@pytest.mark.parametrize(
    ("name", "stack", "style"),
    [
        *((name, 3, style) for name in SMALL for style in STYLES),
        *(("cnn", None, style) for style in STYLES),
        *((name, None, {}) for name in ("vgg16", "resnet18")),
    ],
)
def test_nothing_else_reads_a_unit_and_its_columns_are_all_of_them(
    name: str, stack: int | None, style: dict[str, str]
) -> None:
    torch.manual_seed(0)
    shape = (1, 8, 8) if name in SMALL else (1, 32, 32)
    net = build({"name": name, **SMALL.get(name, {}), **style}, shape, 3, stack).eval()
    images = torch.randn(*(() if stack is None else (stack,)), 2, *shape)
    for group in find_units(net)[-4:]:
        unit = group.count - 2
        assert differs(net, images, group, unit).all() or name in ("vgg16", "resnet18")
        silence(net, group, unit, None if stack is None else 1)
        after = differs(net, images, group, unit)
        assert after.tolist() == ([False] if stack is None else [True, False, True]), group


def test_residual_branches_and_heads_of_a_resnet_but_nothing_behind_a_sum() -> None:
    found = layers_of(build({"name": "resnet18"}, (3, 32, 32), 10))
    assert found == [*(f"blocks.{index}.conv1" for index in range(8)), "head.linear0"]


def test_perceptrons_of_a_vit_but_no_attention() -> None:
    groups = find_units(build({"name": "vit"}, (3, 32, 32), 10))
    assert [g.layer for g in groups] == [f"blocks.{index}.mlp.linear0" for index in range(12)]
    assert all(g.per_unit == () and g.outgoing[0].positions == 1 for g in groups)


def test_a_chain_of_all_kinds_in_plain_torch() -> None:
    shared = nn.Linear(4, 4)
    frozen = nn.Linear(8, 7).requires_grad_(False)
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.GroupNorm(3, 3), nn.GELU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(3, 5, 3, groups=1), nn.Tanh(), nn.Flatten()),
        nn.Sequential(nn.Linear(20, 8), nn.PReLU(8), nn.BatchNorm1d(8), frozen, nn.ReLU()),
        nn.Sequential(nn.Linear(7, 4), nn.ReLU(), shared, nn.ReLU(), shared),
    )
    first, second = find_units(net)
    assert (first.layer, first.per_unit, first.channel) == ("0.0", (("0.1", 1),), -3)
    assert (second.layer, second.outgoing[0].positions) == ("1.0", 4)
    assert net(torch.randn(2, 1, 10, 10)).shape == (2, 4)


class Own(nn.Module):
    """A module with a sum in it, which tells what runs through."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.act, self.out = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4)

    def unit_groups(self) -> list[list[str]]:
        return [["into", "act", "out"]]

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.out(self.act(self.into(inputs)))


def test_a_module_tells_its_own_groups() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Own(), nn.Linear(4, 2))
    assert layers_of(net) == ["2.into"]  # what leads into the sum is none of it


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    net[4].weight = net[0].weight
    return net


def normalised() -> nn.Module:
    return nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2)
    )


def one_relu_for_all() -> nn.Module:
    relu = nn.ReLU()
    return nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 2))


class Free(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.second = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.relu(self.first(inputs))
        return self.second(hidden) + hidden[:, :2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(4, 2),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Unflatten(1, (2, 2)), nn.Linear(2, 2)),
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2)
        ),
        tied,
        normalised,
        one_relu_for_all,
        Free,
    ],
)
def test_what_cannot_be_taken_out_cleanly_is_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(UsageError, match=r"has no hidden units that could be recycled: .*unit_gr"):
        find_units(make())
