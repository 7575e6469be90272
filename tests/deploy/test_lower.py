"""Lowering, rule by rule: what is accepted agrees with float64, what is not says what to use instead."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfp_neurons import QuantizedMembraneLIF, deploy, quantize_weights
from mfp_neurons.deploy.errors import LoweringError
from mfp_neurons.deploy.graph import Concat, Sum
from mfp_neurons.deploy.lowering import lower_graph

from .lowering import Do, Each, T, check_agreement, events, images, neuron, norm, prepared
from .oracle import exact


def after(*layers: nn.Module, features: int, classes: int = 3) -> nn.Module:
    """Layers on [T, N, 4, 6, 6] spikes, and a linear layer on the mean of what they give."""

    def forward(x, first, *others):
        for layer in (first, *others[:-1]):
            x = layer(x)
        return others[-1](x.flatten(2)).mean(0)

    return Do(forward, *layers, nn.Linear(features, classes))


# what the random models of test_lower_property.py leave out, or seldom have
MAPS = {
    "padding by name": (Each(nn.Conv2d(4, 3, 3, padding="same", dilation=2)), neuron(), 3 * 36),
    "no padding by name": (Each(nn.Conv2d(4, 3, 3, padding="valid")), neuron(), 3 * 16),
    "partial windows": (Each(nn.Conv2d(4, 6, 2)), neuron(), Each(nn.MaxPool2d(2, ceil_mode=True)), 6 * 9),
    "a max pool with overlap": (neuron(0.5), Each(nn.MaxPool2d(3, 2, padding=1)), 4 * 9),
    "an average pool with padding": (neuron(0.5), Each(nn.AvgPool2d(3, 1, padding=1)), 4 * 36),
    "a max pool with dilation": (neuron(0.5), Each(nn.MaxPool2d(2, 1, dilation=2)), 4 * 16),
    "an average pool with another divisor": (neuron(0.5), Each(nn.AvgPool2d(2, divisor_override=3)), 4 * 9),
    "an adaptive average pool": (neuron(0.5), Each(nn.AdaptiveAvgPool2d((2, 3))), 4 * 6),
    "an adaptive max pool": (neuron(0.5), Each(nn.AdaptiveMaxPool2d(3)), 4 * 9),
    "a norm of spikes before a neuron": (Each(norm(nn.BatchNorm2d, 4)), neuron(), 4 * 36),
    "a convolution with every option": (
        Each(nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 1), dilation=(1, 2), groups=2)),
        neuron(),
        6 * 3 * 6,
    ),
    "an average pool of currents": (
        Each(nn.Conv2d(4, 6, 3), nn.AvgPool2d(2, divisor_override=3), norm(nn.BatchNorm2d, 6)),
        neuron(),
        6 * 4,
    ),
    "a max pool of currents": (Each(nn.Conv2d(4, 6, 3), nn.MaxPool2d(2)), neuron(), 6 * 4),
    "a max pool of currents that fall": (
        Each(nn.Conv2d(4, 6, 3)),
        Do(lambda x, pool: pool(-x), Each(nn.MaxPool2d(2))),
        neuron(),
        6 * 4,
    ),
    "a neuron behind a neuron": (neuron(0.5, order=2), neuron(0.7), 4 * 36),
}


@pytest.mark.parametrize("layers", MAPS.values(), ids=MAPS.keys())
@pytest.mark.parametrize("bits", [2, 4])  # 2-bit codes reach -2, which has no positive twin
def test_layers_on_maps_agree_with_float64(layers: tuple[Any, ...], bits: float) -> None:
    *chain, features = deepcopy(layers)
    check_agreement(prepared(after(*chain, features=features), bits), events(4, 6, 6))


def test_a_linear_layer_over_the_channels_of_every_place_is_a_convolution() -> None:
    def forward(x, mix, fire, out):
        y = mix(x.transpose(2, 3)).transpose(2, 3)  # [T, N, L, C] in between
        return out(fire(y).flatten(2)).mean(0)

    model = Do(forward, nn.Linear(5, 7), neuron(), nn.Linear(7 * 6, 3))
    graph = check_agreement(prepared(model), events(5, 6))
    assert graph.ops[0].shape == (7, 1, 6)


def block(*layers: nn.Module) -> nn.Module:
    return Each(nn.Conv2d(4, 4, 3, padding=1, bias=False), norm(nn.BatchNorm2d, 4), *layers)


GAIN = torch.tensor([[[0.5]], [[-1.0]], [[2.0]], [[0.0]]])
SHIFT = torch.tensor([[[0.1]], [[0.2]], [[-0.3]], [[0.4]]])
FORWARDS: dict[str, tuple[Callable[..., Tensor], int]] = {
    "currents and constants": (lambda x, a, fire: fire(a(x) + 0.5 * x - 0.25), 144),
    "differences and fractions": (lambda x, a, fire: fire(-fire(a(x)) + x * 0.5 + (1 - x) / 4), 144),
    "zeros": (lambda x, a, fire: fire(a(x) + torch.zeros_like(x) - x.new_zeros(4, 1, 1)), 144),
    "ones": (lambda x, a, fire: fire(a(x) - 0.5 * x.new_ones(4, 1, 1) + torch.ones_like(x)), 144),
    "numbers for each channel": (
        lambda x, a, fire: fire((a(x) * GAIN + SHIFT) / GAIN.abs().add(1)),
        144,
    ),
    "flat maps side by side": (lambda x, a, fire: torch.cat((fire(a(x)).flatten(2), x.flatten(2)), -1), 288),
}


@pytest.mark.parametrize(("forward", "features"), FORWARDS.values(), ids=FORWARDS.keys())
def test_arithmetic_between_layers_agrees_with_float64(forward: Callable[..., Tensor], features: int) -> None:
    model = Do(
        lambda x, a, fire, out: out(forward(x, a, fire).flatten(2)).mean(0),
        *(block(), neuron(), nn.Linear(features, 3)),
    )
    check_agreement(prepared(model), events(4, 6, 6))


def test_sums_and_concatenations_of_spikes_are_small_counts() -> None:
    def forward(x, a, first, b, second, out):
        one, two = first(a(x)), second(b(x))
        added = sum([one, 2 * two, x])
        return out(torch.cat([added, x, 0.5 * two], dim=2).flatten(2)).mean(0)

    model = Do(forward, block(), neuron(), block(), neuron(), nn.Linear(12 * 36, 3))
    graph = check_agreement(prepared(model), events(4, 6, 6))
    sums = [op for op in graph.ops if isinstance(op, Sum)]
    assert [(op.name, op.weights, op.top) for op in sums] == [("add", (1, 2), 3), ("add (2)", (1, 1), 4)]
    (beside,) = [op for op in graph.ops if isinstance(op, Concat)]
    assert (beside.weights, beside.shape) == ((2, 2, 1), (12, 6, 6))


def test_a_layer_that_is_used_twice_is_written_twice() -> None:
    def forward(x, a, fire, out):
        return out(fire(a(fire(a(x)))).flatten(2)).mean(0)

    graph = check_agreement(prepared(Do(forward, block(), neuron(), nn.Linear(144, 3))), events(4, 6, 6))
    assert [op.name for op in graph.ops[:-1]] == ["layers.1", "layers.1 (2)"]


def votes(x: Tensor, a: nn.Module, fire: nn.Module) -> Tensor:
    y = fire(a(x)).flatten(0, 1)
    vote = F.avg_pool1d(y.unsqueeze(1), 4, 4).squeeze(1).unflatten(0, (T, -1))
    return (vote + fire(a(x)).view(T, -1, 3, 4).mean(-1)).mean(0)


READ_OUT: dict[str, tuple[nn.Module, tuple[int, ...], tuple[int, ...]]] = {
    "a linear layer behind the mean over time and places": (
        Do(lambda x, a, fire, out: out(fire(a(x)).mean(dim=(0, 3, 4))), block(), neuron(), nn.Linear(4, 3)),
        (4, 6, 6),
        (3,),
    ),
    "votes of groups of neurons": (Do(votes, nn.Linear(8, 12), neuron()), (8,), (3,)),
    "sequences": (
        Do(
            lambda x, a, fire, pool, out: out(pool(fire(a(x)))).mean(0),
            Each(nn.Conv1d(3, 6, 3, stride=2, padding=1), norm(nn.BatchNorm1d, 6), nn.MaxPool1d(2)),
            *(neuron(), Each(nn.AvgPool1d(2)), Each(nn.Conv1d(6, 4, 1))),
        ),
        (3, 16),
        (4, 2),
    ),
    "maps": (Do(lambda x, a, fire: fire(a(x)).mean(0), block(), neuron()), (4, 6, 6), (4, 6, 6)),
}


@pytest.mark.parametrize(("model", "features", "scores"), READ_OUT.values(), ids=READ_OUT.keys())
def test_scores_keep_the_shape_of_their_features(
    model: nn.Module, features: tuple[int, ...], scores: tuple[int, ...]
) -> None:
    assert check_agreement(prepared(model), events(*features)).scores.features == scores


# the input


def mlp(x, a, fire, out):
    return out(fire(a(x.flatten(2)))).mean(0)


def layers() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Linear(20, 12), neuron(), nn.Linear(12, 3)]


@pytest.mark.parametrize("example", [images(4, 5), images(4, 5).double() / 255], ids=["uint8", "float"])
def test_images_are_levels_of_a_byte(example: Tensor) -> None:
    graph = check_agreement(
        prepared(Do(lambda x, *rest: mlp(x.repeat(T, 1, 1, 1), *rest), *layers())), example
    )
    assert (graph.input.top, graph.input.features) == (255, (4, 5))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.float64])
def test_zeros_and_ones_are_events(dtype: torch.dtype) -> None:
    graph = check_agreement(prepared(Do(mlp, *layers())), events(4, 5).to(dtype))
    assert (graph.input.top, graph.input.static, graph.steps) == (1, False, T)


REPEATS: dict[str, Callable[[Tensor], Tensor]] = {
    "repeat with a new dimension": lambda x: x.repeat(T, 1, 1, 1),
    "expand": lambda x: x[None].expand(T, -1, -1, -1),
    "stack": lambda x: torch.stack([x] * T),
    "in place": lambda x: x.clone().unsqueeze_(0).repeat(T, 1, 1, 1),
    "once": lambda x: x[None],
}


@pytest.mark.parametrize("repeat", REPEATS.values(), ids=REPEATS.keys())
def test_a_model_may_repeat_its_image_itself(repeat: Callable[[Tensor], Tensor]) -> None:
    model = prepared(Do(lambda x, *rest: mlp(repeat(x), *rest), *layers()))
    graph = check_agreement(model, images(4, 5))
    assert graph.input.static
    assert graph.steps == len(repeat(images(4, 5)))


def test_a_flat_input_may_be_seen_as_an_image() -> None:
    def forward(x, a, fire, out):
        steps, batch = x.shape[:2]
        y = a(x.view(steps * batch, 1, 5, 4)).view(steps, batch, 3, 3, 2)
        return out(fire(y).reshape(steps, batch, -1)).mean(0)

    model = prepared(Do(forward, nn.Conv2d(1, 3, 3), neuron(), nn.Linear(18, 3)))
    graph = check_agreement(model, events(20))
    assert (graph.input.shape, graph.input.features) == ((1, 5, 4), (20,))


def test_an_input_may_be_seen_as_an_image_and_as_a_row() -> None:
    def forward(x, conv, row, fire, out):
        y = fire(conv(x.view(*x.shape[:2], 1, 5, 4))).flatten(2).long().to(x.dtype)
        return (out(y) + row(x)).mean(0)

    model = Do(forward, Each(nn.Conv2d(1, 3, 3)), nn.Linear(20, 3), neuron(), nn.Linear(18, 3))
    check_agreement(prepared(model), events(20))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_of_any_dtype_are_read_exactly(dtype: torch.dtype) -> None:
    check_agreement(prepared(Do(mlp, *layers())).to(dtype), events(4, 5))


CURRENTS: dict[str, nn.Module] = {
    "the largest of averages": Each(nn.Conv2d(4, 4, 3), nn.AvgPool2d(2), nn.MaxPool2d(2)),
    "an average of averages": Each(nn.Conv2d(4, 4, 3), nn.AvgPool2d(2, 1), nn.AvgPool2d(2, 1)),
    "the largest of a sum": Do(
        lambda x, a, b, pool: pool(a(x) + b(x)), block(), block(), Each(nn.MaxPool2d(2))
    ),
    "an average with padding": Each(nn.Conv2d(4, 4, 3), nn.AvgPool2d(3, 1, padding=1)),
    "averages of several sizes": Each(nn.Conv2d(4, 4, 3), nn.AvgPool2d(3, 2, 1, ceil_mode=True)),
    "averages over the border": Each(
        nn.Conv2d(4, 4, 3), nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=5)
    ),
    "an adaptive average": Each(nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(3)),
    "a shuffle": Each(nn.Conv2d(4, 4, 3), nn.ChannelShuffle(2)),
    "an upsampling": Each(nn.Conv2d(4, 4, 3), nn.Upsample(scale_factor=2)),
    "a padding": Each(nn.Conv2d(4, 4, 3), nn.ZeroPad2d((1, 0, 2, 0))),
    "side by side": Do(lambda x, a: torch.cat([a(x), x], 2), block()),
}


@pytest.mark.parametrize("model", CURRENTS.values(), ids=CURRENTS.keys())
@pytest.mark.parametrize("behind", ["scores", "neurons"])
def test_currents_are_pooled_and_moved_as_in_float64(model: nn.Module, behind: str) -> None:
    def forward(x, before, *rest):
        y = before(x)
        return (rest[1](rest[0](y).flatten(2)) if rest else y.flatten(2)).mean(0)

    with torch.no_grad():
        size = model(torch.zeros(1, 1, 4, 6, 6)).numel()
    rest = [neuron(), nn.Linear(size, 3)] if behind == "neurons" else []
    whole, x = prepared(Do(forward, model, *rest)), events(4, 6, 6)
    network = deploy.lower(whole, x)
    expected = exact(whole)(x.double()).numpy()
    assert expected.any()
    # currents that are written down are rounded, and say by how much scores may be off
    bound = network.graph.heads[0].error.max() + 1e-9
    assert bound < 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(network.run(x, backend="numpy"), expected, rtol=0, atol=bound)


# what is refused


def conv(*arguments: Any, **options: Any) -> nn.Module:
    return Each(quantize_weights(nn.Conv2d(*arguments, **options)))


def flat(forward: Callable[..., Any]) -> nn.Module:
    """A function of a flat input, a linear layer, neurons and another linear layer."""
    parts = nn.Linear(144, 12), neuron(), nn.Linear(12, 3)
    return prepared(Do(lambda x, *rest: forward(x.flatten(2), *rest), *parts))


def real() -> nn.Module:
    inner = nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 3))
    return quantize_weights(nn.Sequential(nn.Conv2d(4, 4, 3), inner, nn.Linear(2, 2)), skip=["0", "1.0"])


LOOP = ("the model (Do)", "A loop over time is followed only around", "MFPLeakyParallel")
# what integers have no place for; what no export reads is in tests/network/test_refusals.py
REFUSED: list[tuple[nn.Module, tuple[str, ...]]] = [
    (
        real(),
        ("'0' (Conv2d), '1.0' (Linear): weights", "quantize_weights(model, bits=1)"),
    ),  # before anything else
    (
        nn.Sequential(nn.ReLU()),
        ("'0' (ReLU) calls relu, which no integer network has. Only a spiking neuron",),
    ),
    (conv(4, 4, 1, padding=1), ("'0' (QuantizedConv2d)", "less padding")),
    (Do(lambda x: x * torch.rand(6)), ("(Do)", "each channel")),
    (
        QuantizedMembraneLIF(0.5),
        ("(QuantizedMembraneLIF) keeps a membrane potential, and an integer", "convert"),
    ),
    (flat(lambda x, a, fire, out: torch.stack([fire(a(now)[None])[0] for now in x]).mean(0)), LOOP),
    (flat(lambda x, a, fire, out: sum(fire(a(x[t])[None])[0] for t in range(len(x)))), LOOP),
    (flat(lambda x, a, fire, out: sum(fire(a(now)[None])[0] for now in x.unbind(0))), LOOP),
    (flat(lambda x, a, fire, out: fire(a(x))[1:3].mean(0)), ("A loop over time",)),
    (flat(lambda x, a, fire, out: out(fire(a(x)).sum(0))), ("bias=False",)),
    (flat(lambda x, a, fire, out: fire(a(x)).sum(0) + 1), ("sum over time",)),
    (flat(lambda x, a, fire, out: F.linear(x, torch.ones(3, 144))), ("Linear modules",)),
    (
        Do(lambda x, fire, last: last(fire(x).sum(0)), neuron(), norm(nn.BatchNorm2d, 4)),
        ("normalizes a sum over time. Take the mean",),
    ),
]


@pytest.mark.parametrize(("model", "words"), REFUSED)
def test_what_has_no_place_in_integers_is_named_with_its_path_its_type_and_an_alternative(
    model: nn.Module, words: tuple[str, ...]
) -> None:
    with pytest.raises(LoweringError) as caught:
        lower_graph(model, events(4, 6, 6))
    for part in words:
        assert part in str(caught.value)


def test_two_layers_whose_sum_is_that_over_flattened_maps_beside_vectors_agree_with_float64() -> None:
    def added(x, first, fire, other, second, left, right):
        return (left(fire(first(x)).flatten(2)) + right(second(other(x.flatten(2))))).mean(0)

    parts = block(), neuron(), nn.Linear(144, 5), neuron(), nn.Linear(144, 3), nn.Linear(5, 3)
    check_agreement(prepared(Do(added, *parts)), events(4, 6, 6))


# arguments


@pytest.mark.parametrize(
    ("example", "levels", "error", "words"),
    [
        (torch.ones(4, 2, 20, dtype=torch.complex64), None, TypeError, "must hold real numbers"),
        (torch.full((4, 2, 20), float("nan")), None, ValueError, r"example .* \[0, 1\]"),
        (torch.full((4, 2, 20), 1.5), None, ValueError, r"example .* from 1\.5 to 1\.5"),
        (torch.full((4, 2, 20), -1.5), None, ValueError, r"example .* from -1\.5"),
        *(
            (events(4, 5), bad, ValueError, "levels must be .* from 1 to 32768")
            for bad in (0, 2**15 + 1, True, 2.0)
        ),
        (images(4, 5), 16, ValueError, "example must be at most levels=16"),
    ],
)
def test_an_example_or_levels_of_the_wrong_kind_are_refused(
    example: Any, levels: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        lower_graph(prepared(Do(mlp, *layers())), example, levels=levels)
