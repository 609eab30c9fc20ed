"""Networks, activations and normalisations as a user's file has them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ht_bench.networks.noise import Noisy


class Snake(nn.Module):
    """x + sin²(a x)/a with a trained `a` for the whole layer (Ziyin et al. 2020)."""

    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        self.start = start
        self.frequency = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.frequency, self.start, 2 * self.start)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + torch.sin(self.frequency * inputs) ** 2 / self.frequency


class Powers(nn.Module):
    """[x, x², x³]: three features of a unit."""

    features = 3

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat((inputs, inputs**2, inputs**3), self.dim)


class Scaled(nn.Module):
    """Divides by a running mean of |x|: a buffer, changed in place, and a part with one inside."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(()))
        self.inner = Snake()

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.mean.lerp_(inputs.detach().abs().mean(), 0.1)
        return self.inner(inputs / self.mean)


class Jitter(Noisy):
    """ReLU of a number that is disturbed in training."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(inputs + self.uniform(inputs) if self.training else inputs)


class LeakyLinear(nn.ReLU):
    """A subclass of ReLU that is none: no shortcut for ReLU may serve it."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.where(inputs > 0, inputs, 0.5 * inputs)


def half_relu(dim: int) -> nn.Module:
    return nn.LeakyReLU(0.5)


class RMSNorm(nn.Module):
    def __init__(self, units: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(units)), epsilon

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        scale = torch.rsqrt(inputs.square().mean(-1, keepdim=True) + self.epsilon)
        return inputs * scale * self.weight


class OfSeeds(nn.Module):
    """A normalisation that brings its dimension of seeds along."""

    def __init__(self, units: int, stack: int | None = None) -> None:
        super().__init__()
        shape = (units,) if stack is None else (stack, 1, units)
        self.weight = nn.Parameter(torch.full(shape, 2.0))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.weight


# ---- networks ----


def pooled(options: Any, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A plain torch network without a word for this package."""
    width = options.get("width", 8)
    convolution = [nn.Conv2d(shape[0], width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(
        *convolution, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, classes)
    )


pooled.options = ("width",)  # type: ignore[attr-defined]


class Product(nn.Module):
    """x W, of each seed with its own W where there is a stack."""

    def __init__(self, inputs: int, outputs: int, stack: int | None) -> None:
        super().__init__()
        seeds = () if stack is None else (stack,)
        self.weight = nn.Parameter(torch.empty(*seeds, outputs, inputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for row in self.weight if self.weight.dim() == 3 else [self.weight]:
            nn.init.normal_(row, std=0.1)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight.mT


class Perceptron(nn.Module):
    """Options by keyword, and a stack of its own."""

    def __init__(
        self, shape: tuple[int, int, int], classes: int, *, width: int = 6, stack: int | None = None
    ) -> None:
        super().__init__()
        self.stacked = stack is not None
        self.first = Product(shape[0] * shape[1] * shape[2], width, stack)
        self.last = Product(width, classes, stack)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(images.flatten(-3))))


class ByPosition(nn.Sequential):
    """Two linear layers."""

    def __init__(self, options: Any, shape: tuple[int, int, int], classes: int) -> None:
        features = shape[0] * shape[1] * shape[2]
        super().__init__(nn.Flatten(), nn.Linear(features, 7), nn.Tanh(), nn.Linear(7, classes))


# ---- what must be refused ----


class Mixes(nn.Module):
    """What is made of one seed depends on the others."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(inputs - inputs.mean())


class Draws(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(inputs * torch.rand_like(inputs))


class Doubles(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat((inputs, inputs), -1)


class Fails(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        raise ValueError("not today")


def no_module(dim: int) -> int:
    return dim


NUMBER = 3


def narrow(options: Any, shape: tuple[int, int, int], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes - 1))


def broken(options: Any, shape: tuple[int, int, int], classes: int) -> nn.Module:
    raise KeyError("depth")


def nothing(options: Any, shape: tuple[int, int, int], classes: int) -> None:
    return None


def weightless(options: Any, shape: tuple[int, int, int], classes: int) -> nn.Module:
    return nn.Flatten()
