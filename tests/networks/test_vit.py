"""ViT-Tiny at the resolution of CIFAR-100."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ht_bench import networks
from ht_bench.errors import UsageError
from ht_bench.networks.vit import Attention, PatchEmbedding, ViT, build_vit

SHAPE, CLASSES = (3, 32, 32), 100


def make(seed: int = 0, **options: Any) -> ViT:
    torch.manual_seed(seed)
    return build_vit(options, SHAPE, CLASSES)


def redraw(module: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for child in module.modules():
        reset = getattr(child, "reset_parameters", None)
        if reset is not None:
            reset()


def test_the_parameter_count_is_the_sum_over_its_parts() -> None:
    pixels, patches, norm = 3 * 4 * 4, 8 * 8, 2 * 192
    embedding = 2 * pixels + (pixels + 1) * 192 + norm
    tokens = (patches + 1) * 192 + 192
    attention = norm + 192 * 3 * 192 + (192 + 1) * 192
    mlp = norm + (192 + 1) * 768 + (768 + 1) * 192
    output = norm + (192 + 1) * CLASSES
    total = sum(parameter.numel() for parameter in make().parameters())
    assert total == embedding + tokens + 12 * (attention + mlp) + output == 5_373_700


def test_layers_run_from_input_to_output() -> None:
    network = make()
    inner = ("attention.qkv", "attention.projection", "mlp.linear0", "mlp.linear1")
    blocks = [f"blocks.{index}.{name}" for index in range(12) for name in inner]
    assert network.layers() == ["embedding.linear", *blocks, "output"]
    assert network.output.out_features == CLASSES
    biases = {name for name in network.state_dict() if name.endswith("bias")}
    assert "blocks.0.attention.projection.bias" in biases
    assert "blocks.0.attention.qkv.bias" not in biases
    assert not network.stacked


def test_patches_are_read_row_by_row_with_channels_last() -> None:
    embedding = PatchEmbedding(3)
    received: list[Tensor] = []
    embedding.norm1.register_forward_hook(lambda _module, inputs, _out: received.append(inputs[0]))
    images = torch.randn(2, *SHAPE)
    assert embedding(images).shape == (2, 64, 192)
    # The eleventh patch lies in the second row of eight, third from the left.
    expected = images[:, :, 4:8, 8:12].permute(0, 2, 3, 1).flatten(1)
    assert torch.equal(received[0][:, 10], expected)


def test_attention_is_the_softmax_formula_over_three_heads() -> None:
    torch.manual_seed(0)
    attention = Attention().eval()
    inputs = torch.randn(2, 5, 192)
    rows = attention.qkv(attention.norm(inputs))
    heads = []
    for head in range(3):
        start = 64 * head
        q, k, v = (rows[..., o + start : o + start + 64] for o in (0, 192, 384))
        heads.append(torch.softmax(q @ k.mT / 8, -1) @ v)
    expected = attention.projection(torch.cat(heads, -1))
    torch.testing.assert_close(attention(inputs), expected)


def test_the_class_token_leads_and_positions_are_added() -> None:
    tokens = make().eval().tokens
    patches = torch.randn(2, 64, 192)
    sequence = tokens(patches)
    torch.testing.assert_close(sequence[:, 1:], patches + tokens.positions[:, 1:])
    assert torch.equal(sequence[0, 0], tokens.class_token[0, 0] + tokens.positions[0, 0])
    assert abs(float(tokens.positions.detach().std()) - 1) < 0.03


def test_dropout_acts_in_training_only() -> None:
    network = make()
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    assert [module.p for module in dropouts] == [0.1] * (1 + 3 * 12)
    images = torch.randn(2, *SHAPE)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


def test_attention_drops_weights_in_training_only() -> None:
    torch.manual_seed(0)
    attention = Attention()
    attention.dropout.p = 0.0
    inputs = torch.randn(2, 5, 192)
    assert not torch.equal(attention(inputs), attention(inputs))
    attention.eval()
    assert torch.equal(attention(inputs), attention(inputs))


def test_two_steps_move_every_parameter() -> None:
    network = make()
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    images, labels = torch.randn(4, *SHAPE), torch.arange(4)
    for _ in range(2):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    assert all(not torch.equal(value, before[name]) for name, value in network.named_parameters())


def test_each_activation_is_its_own_module() -> None:
    network = make()
    every = network.named_modules(remove_duplicate=False)
    named = [module for _, module in every if isinstance(module, nn.GELU)]
    widths: list[int] = []
    for module in named:
        module.register_forward_hook(lambda _module, _in, output: widths.append(output.shape[-1]))
    network(torch.randn(2, *SHAPE))
    assert len({id(module) for module in named}) == len(named) == 12
    assert widths == [768] * 12


def test_a_redraw_changes_every_weight_and_repeats_the_construction() -> None:
    network, twin = make(seed=1), make(seed=1)
    redraw(network, 2)
    pairs = zip(network.parameters(), twin.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in pairs if a.dim() >= 2)
    redraw(network, 1)
    for name, value in twin.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"activation": "crelu"}, "activation = 'crelu'.* no ReLU to replace"),
        ({"activation": "relu"}, "activation = 'relu'.* no ReLU to replace"),
        ({"linear_norm": "layer"}, "linear_norm = 'layer'.* already has LayerNorm"),
        ({"linear_norm": "batch"}, "linear_norm = 'batch'.* already has LayerNorm"),
    ],
)
def test_changes_it_would_not_make_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make(**options)


def test_its_own_values_may_be_named() -> None:
    make(activation="gelu", linear_norm="none")


def test_images_and_stacks_it_cannot_take_are_refused() -> None:
    with pytest.raises(UsageError, match="multiples of 4, not 30 x 30"):
        build_vit({}, (3, 30, 30), CLASSES)
    with pytest.raises(UsageError, match="'vit' does not stack seeds"):
        networks.build({"name": "vit"}, SHAPE, CLASSES, stack=10)
