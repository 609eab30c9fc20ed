"""The weight matrices of any module, for methods that work on singular values, norms or rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from ht_bench.errors import Unsuitable, UsageError
from ht_bench.methods.derived import old_hooks
from ht_bench.networks.stacking import is_stacked

ATTENTION = ("qkv", "in_proj_weight")
"""Names under which a layer or parameter holds queries, keys and values, in this order."""
_GATES: dict[type[nn.Module], int] = {nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3}


@dataclass(frozen=True, eq=False)
class WeightMatrix:
    """A parameter that holds a layer's weight matrix, or several of equal shape one below another.

    name: the parameter's. layer: the name of the module that owns it. bias: the layer's vector
    that goes with it. blocks: how many matrices it holds: queries, keys and values are three, the
    gates of an LSTM four. stacked: whether a seed dimension leads.
    """

    name: str
    layer: str
    parameter: nn.Parameter
    bias: nn.Parameter | None
    blocks: int
    is_attention: bool
    stacked: bool

    @property
    def gradient(self) -> Tensor | None:
        """Return the parameter's gradient; None where the present step does not train it."""
        return self.parameter.grad

    @property
    def fan_in(self) -> int:
        """Return the inputs of one unit; of a convolution at all taps."""
        return self.parameter[0, 0].numel() if self.stacked else self.parameter[0].numel()

    def values(self) -> Tensor:
        """Return the matrices as [seeds, blocks, out, fan_in]: seeds is 1 without a stack.

        Memory may be shared or not: change the parameter by `set`.
        """
        return self._by_block(self.parameter.detach()).flatten(3)

    def taps(self) -> Tensor:
        """Return each tap of the kernel as a matrix: [seeds, blocks, taps, out, in]."""
        return self._by_block(self.parameter.detach()).flatten(4).movedim(4, 2)

    def set_taps(self, taps: Tensor) -> None:
        """Give the parameter, in place, the values of a tensor shaped as `taps` returns."""
        self.set(taps.movedim(2, 4))

    def set(self, values: Tensor) -> None:
        """Give the parameter, in place, the values of a tensor shaped as `values` returns."""
        self.parameter.copy_(values.reshape(self.parameter.shape))

    def add_to_gradient(self, values: Tensor, factor: float) -> None:
        """Add `factor` times a tensor shaped as `values` returns to the parameter's gradient."""
        assert self.parameter.grad is not None
        self.parameter.grad.add_(values.reshape(self.parameter.shape), alpha=factor)

    def _by_block(self, tensor: Tensor) -> Tensor:
        """Return [seeds, blocks, out, in, taps...], with one tap where there is no kernel."""
        seeds = tensor if self.stacked else tensor[None]
        if seeds.dim() == 3:
            seeds = seeds[..., None]
        return seeds.unflatten(1, (self.blocks, -1))


def weight_matrices(module: nn.Module, method: str) -> list[WeightMatrix]:
    """Return the weight matrices of `module` in the order of its parameters.

    They are the parameters of two dimensions or more (three in a stack) of a network's own
    `layers()`, elsewhere of all modules but embeddings, tables of positions and class tokens. Of a
    transposed convolution the rows are its inputs.

    Raises:
        UsageError: there is none, or one is derived from other parameters (a parametrization,
            weight norm, pruning), so that its value cannot be set. `method` is named in it.

    """
    stacked, own_layers = is_stacked(module), _own_layers(module)
    _check_plain(module, method)
    found = [
        _describe(prefix, owner, key, parameter, stacked)
        for prefix, owner, key, parameter in _parameters(module)
        if (own_layers is None or prefix in own_layers) and _is_matrix(owner, parameter, stacked)
    ]
    if not found:
        raise Unsuitable(
            f"'{method}' works on weight matrices, and {type(module).__name__} has none; give it "
            "linear or convolutional layers, or choose another method."
        )
    return found


def _own_layers(module: nn.Module) -> set[str] | None:
    layers = getattr(module, "layers", None)
    if callable(layers) and not isinstance(layers, nn.Module):
        return set(layers())
    return None


def _parameters(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    seen: set[int] = set()
    for prefix, owner in module.named_modules():
        for key, parameter in owner.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield prefix, owner, key, parameter


def _is_matrix(owner: nn.Module, parameter: nn.Parameter, stacked: bool) -> bool:
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag) or not parameter.is_floating_point():
        return False
    dimensions = parameter.dim() - stacked
    # [1, tokens, width] is how networks keep positions and class tokens.
    is_token = dimensions == 3 and parameter.shape[0] == 1 and not isinstance(owner, _ConvNd)
    return dimensions >= 2 and not (is_token and not stacked)


def _describe(
    prefix: str, owner: nn.Module, key: str, parameter: nn.Parameter, stacked: bool
) -> WeightMatrix:
    bias = owner._parameters.get(key.replace("weight", "bias")) if "weight" in key else None
    is_attention = key in ATTENTION or prefix.rpartition(".")[2] in ATTENTION
    blocks = 3 if is_attention else _GATES.get(type(owner), 1)
    name = f"{prefix}.{key}" if prefix else key
    return WeightMatrix(name, prefix, parameter, bias, blocks, is_attention, stacked)


def _check_plain(module: nn.Module, method: str) -> None:
    derived = [name for name, m in module.named_modules() if parametrize.is_parametrized(m)]
    old = {id(hook.module) for hook in old_hooks(module)}
    derived += [name for name, m in module.named_modules() if id(m) in old]
    if derived:
        raise UsageError(
            f"The weight of '{derived[0]}' is derived from other parameters (a parametrization, "
            f"weight norm, pruning), and '{method}' sets weights themselves; take that off, or "
            "choose another method."
        )
