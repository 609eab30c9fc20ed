"""The gradient written by hand: autograd's numbers, its derivative, and where it stands aside."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ht_bench.networks.chain import Chain
from ht_bench.networks.mlp import StackedLinear, StackedMLP

SIZES = [(64, 128, 128, 128, 10), (7, 5, 3, 2), (20, 4), (100, 33, 10)]


def network(sizes: tuple[int, ...] = SIZES[1], stack: int = 3, style: str = "relu") -> StackedMLP:
    torch.manual_seed(0)
    return StackedMLP(sizes, stack, style, "none")


def batch(module: StackedMLP, examples: int = 16) -> Tensor:
    [first] = [child for child in module.children() if isinstance(child, StackedLinear)][:1]
    return torch.randn(module.stack, examples, first.in_features)


def watched(module: StackedMLP, inputs: Tensor) -> Tensor:
    """The module's outputs by the operations of its children, since one has a hook."""
    handle = module.output.register_forward_hook(lambda *_: None)
    outputs = module(inputs)
    handle.remove()
    return outputs


def is_by_hand(outputs: Tensor) -> bool:
    return type(outputs.grad_fn).__name__ == "ChainBackward"


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether they are equal but for the order of a product's sums.

    A weight's gradient is a transposed product to autograd; an AMD EPYC (no Intel Xeon so far)
    rounds that otherwise in its last bits.
    """
    return float((one - other).abs().max()) <= 1e-6 * float(other.abs().max())


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("stack", [1, 10])
def test_outputs_are_autograds_bits_and_gradients_its_numbers(
    sizes: tuple[int, ...], stack: int
) -> None:
    module = network(sizes, stack)
    inputs = batch(module, 64).requires_grad_()
    tensors, toward = [inputs, *module.parameters()], torch.randn(stack, 64, sizes[-1])
    by_hand, by_autograd = module(inputs), watched(module, inputs)
    assert is_by_hand(by_hand) and not is_by_hand(by_autograd)
    assert torch.equal(by_hand, by_autograd)
    gradients = [torch.autograd.grad(out, tensors, toward) for out in (by_hand, by_autograd)]
    for one, other in zip(*gradients, strict=True):
        assert alike(one, other)
        assert one.is_contiguous()  # or the optimizer would be given a copy


def test_a_gradient_can_be_differentiated() -> None:
    """Hessian-vector products, as curvature takes them; the gradient itself keeps its value."""
    module, tensors = network(), list(network().parameters())
    inputs, tensors = batch(module), list(module.parameters())
    vectors = [torch.randn_like(tensor) for tensor in tensors]

    def product(outputs: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        loss = outputs.square().sum() + outputs.exp().sum()
        gradients = torch.autograd.grad(loss, tensors, create_graph=True)
        dot = sum(((g * v).sum() for g, v in zip(gradients, vectors, strict=True)), torch.zeros(()))
        return list(gradients), torch.autograd.grad(dot, tensors)

    outputs = module(inputs)
    assert is_by_hand(outputs)
    for one, other in zip(product(outputs), product(watched(module, inputs)), strict=True):
        assert all(map(torch.allclose, one, other))
    double = [tensor.detach().double().requires_grad_() for tensor in (inputs, *tensors)]
    assert torch.autograd.gradcheck(Chain.apply, double)
    assert torch.autograd.gradgradcheck(Chain.apply, double)


def test_frozen_parameters_get_no_gradient_and_others_theirs() -> None:
    module = network()
    inputs = batch(module)
    for frozen in range(len(list(module.parameters()))):
        gradients = []
        for run in (module, lambda given: watched(module, given)):
            for place, parameter in enumerate(module.parameters()):
                parameter.grad = None
                parameter.requires_grad_(place != frozen)
            run(inputs).sum().backward()
            gradients.append([parameter.grad for parameter in module.parameters()])
        for place, (one, other) in enumerate(zip(*gradients, strict=True)):
            if place == frozen:
                assert one is None and other is None
            else:
                assert one is not None and other is not None and alike(one, other)


def hooked(module: StackedMLP) -> None:
    module.activation0.register_forward_hook(lambda *_: None)


def told_of_gradients(module: StackedMLP) -> None:
    module.linear0.register_full_backward_hook(lambda *_: None)


def replaced(module: StackedMLP) -> None:
    module.activation0 = nn.Tanh()


def without_activation(module: StackedMLP) -> None:
    del module.activation0


def patched(module: StackedMLP) -> None:
    forward = module.linear0.forward
    module.linear0.forward = lambda inputs: 2 * forward(inputs)  # type: ignore[assignment]


def parametrized(module: StackedMLP) -> None:
    nn.utils.parametrizations.weight_norm(module.linear0)


CHANGES = [hooked, told_of_gradients, replaced, without_activation, patched, parametrized]


@pytest.mark.parametrize("change", CHANGES)
def test_another_chain_or_one_that_is_watched_goes_through_its_children(
    change: Callable[[StackedMLP], None],
) -> None:
    module = network((6, 6, 6, 2))
    change(module)
    hidden = inputs = batch(module)
    for child in module.children():
        hidden = child(hidden)
    outputs = module(inputs)
    assert not is_by_hand(outputs) and torch.equal(outputs, hidden)


def test_other_passes_go_through_the_operations() -> None:
    module, crelu = network(), network((6, 4, 2), style="crelu")
    inputs = batch(module)
    assert not is_by_hand(crelu(batch(crelu)))
    assert not is_by_hand(network().double()(inputs.double()))
    with torch.no_grad():
        assert module(inputs).grad_fn is None
    with torch.autocast("cpu", torch.bfloat16):
        assert module(inputs).dtype == torch.bfloat16
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(inputs, torch.ones_like(inputs))
        assert torch.autograd.forward_ad.unpack_dual(module(dual)).tangent is not None
    parameters = dict(module.named_parameters())

    def loss(weights: dict[str, Tensor], given: Tensor) -> Tensor:
        return torch.func.functional_call(module, weights, (given,)).square().sum()

    by_functorch = torch.func.grad(loss)(parameters, inputs)
    loss(parameters, inputs).backward()
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        torch.testing.assert_close(by_functorch[name], parameter.grad)
    per_example = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, inputs[None])
    torch.testing.assert_close(per_example["output.bias"][0], by_functorch["output.bias"])


def test_weights_changed_before_backward_are_refused_as_autograd_does() -> None:
    module = network()
    outputs = module(batch(module)).sum()
    with torch.no_grad():
        module.output.weight.mul_(2)  # type: ignore[operator]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.backward()
