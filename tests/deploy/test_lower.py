"""Lowering, rule by rule: what is accepted agrees with float64, what is not says what to use instead."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfp_neurons import QuantizedMembraneLIF, quantize_weights
from mfp_neurons.deploy.errors import LoweringError
from mfp_neurons.deploy.graph import Concat, Pool, Sum
from mfp_neurons.deploy.lowering import lower_graph

from .lowering import Do, Each, T, check_agreement, events, images, neuron, norm, prepared


def after(*layers: nn.Module, features: int, classes: int = 3) -> nn.Module:
    """Layers on [T, N, 4, 6, 6] spikes, and a linear layer on the mean of what they give."""

    def forward(x, first, *others):
        for layer in (first, *others[:-1]):
            x = layer(x)
        return others[-1](x.flatten(2)).mean(0)

    return Do(forward, *layers, nn.Linear(features, classes))


# what the random models of test_lower_property.py leave out
MAPS = {
    "padding by name": (Each(nn.Conv2d(4, 3, 3, padding="same", dilation=2)), neuron(), 3 * 36),
    "no padding by name": (Each(nn.Conv2d(4, 3, 3, padding="valid")), neuron(), 3 * 16),
    "partial windows": (Each(nn.Conv2d(4, 6, 2)), neuron(), Each(nn.MaxPool2d(2, ceil_mode=True)), 6 * 9),
    "a max pool with dilation": (neuron(0.5), Each(nn.MaxPool2d(2, 1, dilation=2)), 4 * 16),
    "an average pool with another divisor": (neuron(0.5), Each(nn.AvgPool2d(2, divisor_override=3)), 4 * 9),
    "an adaptive average pool": (neuron(0.5), Each(nn.AdaptiveAvgPool2d((2, 3))), 4 * 6),
    "an adaptive max pool": (neuron(0.5), Each(nn.AdaptiveMaxPool2d(3)), 4 * 9),
    "a norm of spikes before a neuron": (Each(norm(nn.BatchNorm2d, 4)), neuron(), 4 * 36),
    "a neuron behind a neuron": (neuron(0.5, order=2), neuron(0.7), 4 * 36),
}


@pytest.mark.parametrize("layers", MAPS.values(), ids=MAPS.keys())
def test_layers_on_maps_agree_with_float64(layers: tuple[Any, ...]) -> None:
    *chain, features = deepcopy(layers)
    check_agreement(prepared(after(*chain, features=features)), events(4, 6, 6))


def test_a_linear_layer_over_the_channels_of_every_place_is_a_convolution() -> None:
    def forward(x, mix, fire, out):
        y = mix(x.transpose(2, 3)).transpose(2, 3)  # [T, N, L, C] in between
        return out(fire(y).flatten(2)).mean(0)

    model = Do(forward, nn.Linear(5, 7), neuron(), nn.Linear(7 * 6, 3))
    graph = check_agreement(prepared(model), events(5, 6))
    assert graph.ops[0].shape == (7, 1, 6)


def block(*layers: nn.Module) -> nn.Module:
    return Each(nn.Conv2d(4, 4, 3, padding=1, bias=False), norm(nn.BatchNorm2d, 4), *layers)


GAIN, SHIFT = torch.tensor([0.5, -1.0, 2.0, 0.0]), torch.tensor([[[0.1]], [[0.2]], [[-0.3]], [[0.4]]])
FORWARDS: dict[str, tuple[Callable[..., Tensor], int]] = {
    "currents and constants": (lambda x, a, fire: fire(a(x) + 0.5 * x - 0.25), 144),
    "differences and fractions": (lambda x, a, fire: fire(-fire(a(x)) + x * 0.5 + (1 - x) / 4), 144),
    "zeros and ones": (
        lambda x, a, fire: fire(a(x) + torch.zeros_like(x) - 0.5 * x.new_ones(4, 1, 1) + torch.ones_like(x)),
        144,
    ),
    "numbers for each channel": (
        lambda x, a, fire: fire(
            (a(x) * GAIN.to(x.dtype)[:, None, None] + SHIFT.to(x.dtype))
            / GAIN.to(x.dtype).abs().add(1)[:, None, None]
        ),
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


def test_a_linear_layer_may_come_after_the_mean_over_time() -> None:
    def forward(x, a, fire, out):
        return out(fire(a(x)).mean(dim=(0, 3, 4)))

    model = prepared(Do(forward, block(), neuron(), nn.Linear(4, 3)))
    graph = check_agreement(model, events(4, 6, 6))
    assert isinstance(graph.ops[1], Pool)


def test_groups_of_neurons_vote() -> None:
    def forward(x, a, fire):
        y = fire(a(x)).flatten(0, 1)
        votes = F.avg_pool1d(y.unsqueeze(1), 4, 4).squeeze(1).unflatten(0, (T, -1))
        return (votes + fire(a(x)).view(T, -1, 3, 4).mean(-1)).mean(0)

    check_agreement(prepared(Do(forward, nn.Linear(8, 12), neuron())), events(8))


def test_scores_keep_the_shape_of_their_features() -> None:
    def forward(x, a, fire):
        return fire(a(x)).mean(0)

    graph = check_agreement(prepared(Do(forward, block(), neuron())), events(4, 6, 6))
    assert graph.scores.features == (4, 6, 6)


# the input


def mlp(x, a, fire, out):
    return out(fire(a(x.flatten(2)))).mean(0)


def shown(x, a, fire, out):
    return mlp(x.unsqueeze(0).repeat(T, 1, 1, 1), a, fire, out)


def layers() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Linear(20, 12), neuron(), nn.Linear(12, 3)]


@pytest.mark.parametrize("dtype", ["uint8", "float"])
def test_images_are_levels_of_a_byte(dtype: str) -> None:
    example = images(4, 5)
    example = example if dtype == "uint8" else example.double() / 255
    graph = check_agreement(prepared(Do(shown, *layers())), example)
    assert (graph.input.top, graph.input.static, graph.steps) == (255, True, T)
    assert graph.input.features == (4, 5)


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


# what is refused


def refusal(model: nn.Module, example: Tensor | None = None) -> str:
    with pytest.raises(LoweringError) as caught:
        lower_graph(model, events(4, 6, 6) if example is None else example)
    return str(caught.value)


def test_all_real_weights_are_listed_before_anything_else() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 3)), nn.Linear(2, 2))
    quantize_weights(model, skip=["0", "1.0"])
    words = refusal(model)
    assert "'0' (Conv2d), '1.0' (Linear)" in words
    assert "'2'" not in words
    assert "quantize_weights(model, bits=1)" in words


def conv(*arguments: Any, **options: Any) -> nn.Module:
    return Each(quantize_weights(nn.Conv2d(*arguments, **options)))


# what integers have no place for; what no export reads is in tests/network/test_refusals.py
LAYERS: list[tuple[nn.Module, str, str]] = [
    (nn.ReLU(), "ReLU", "calls relu, which no integer network has. Only a spiking neuron"),
    (conv(4, 4, 1, padding=1), "QuantizedConv2d", "less padding"),
    (Each(nn.AvgPool2d(4, 4, ceil_mode=True)), "AvgPool2d", "ceil_mode=False"),
    (Do(lambda x: x * x), "Do", "'AND' and 'IAND'"),
    (Do(lambda x: x * (1.0 - x)), "Do", "'AND' and 'IAND'"),
    (Do(lambda x: x * torch.rand(6)), "Do", "each channel"),
    (QuantizedMembraneLIF(0.5), "QuantizedMembraneLIF", "keeps a membrane potential, and an integer network"),
]


@pytest.mark.parametrize(("layer", "kind", "instead"), LAYERS)
def test_what_is_not_in_the_grammar_is_named_with_its_path_its_type_and_an_alternative(
    layer: nn.Module, kind: str, instead: str
) -> None:
    words = refusal(nn.Sequential(nn.Identity(), nn.Sequential(layer)))
    assert "'1.0" in words
    assert f"({kind})" in words
    assert instead in words


def test_two_layers_whose_sum_is_that_over_flattened_maps_beside_vectors_agree_with_float64() -> None:
    def added(x, first, fire, other, second, left, right):
        return (left(fire(first(x)).flatten(2)) + right(second(other(x.flatten(2))))).mean(0)

    parts = block(), neuron(), nn.Linear(144, 5), neuron(), nn.Linear(144, 3), nn.Linear(5, 3)
    check_agreement(prepared(Do(added, *parts)), events(4, 6, 6))


def test_two_synapses_need_a_neuron_between_them() -> None:
    model = prepared(nn.Sequential(Each(nn.Conv2d(4, 4, 3)), Each(nn.Conv2d(4, 2, 3))))
    words = refusal(model)
    assert "'1.0' (QuantizedConv2d)" in words
    assert "'0.0' (QuantizedConv2d) stands before it" in words
    assert "put a neuron between the two" in words


def test_a_normalization_behind_a_neuron_does_not_feed_a_synapse() -> None:
    model = prepared(nn.Sequential(neuron(), Each(norm(nn.BatchNorm2d, 4), nn.Conv2d(4, 2, 3))))
    words = refusal(model)
    assert "'1.0' (BatchNorm2d) stands before it" in words
    assert "a normalization between the synapse before it and that neuron" in words


def test_a_norm_behind_a_sum_over_time_is_refused() -> None:
    model = Do(lambda x, fire, last: last(fire(x).sum(0)), neuron(), norm(nn.BatchNorm2d, 4))
    assert "normalizes a sum over time. Take the mean" in refusal(model)


def test_pooled_twice_or_pooled_sums_need_a_neuron() -> None:
    twice = prepared(Each(nn.Conv2d(4, 4, 3), nn.AvgPool2d(2), nn.MaxPool2d(2)))
    assert "Put one between" in refusal(nn.Sequential(twice))
    summed = Do(lambda x, a, b, pool: pool(a(x) + b(x)), block(), block(), Each(nn.MaxPool2d(2)))
    assert "neuron in front of the pool" in refusal(prepared(summed))
    padded = prepared(Each(nn.Conv2d(4, 4, 3), nn.AvgPool2d(3, 1, padding=1)))
    assert "padding=0" in refusal(nn.Sequential(padded))


def loop(x, a, fire, out):
    return torch.stack([out(fire(a(step)[None])[0]) for step in x.flatten(2)]).mean(0)


def indexed(x, a, fire, out):
    return sum(out(fire(a(x[t].flatten(1))[None])[0]) for t in range(len(x)))


def unbound(x, a, fire, out):
    return sum(out(fire(a(step.flatten(1))[None])[0]) for step in x.unbind(0))


@pytest.mark.parametrize("forward", [loop, indexed, unbound])
def test_a_loop_over_time_gets_a_clear_word(forward: Callable[..., Tensor]) -> None:
    words = refusal(prepared(Do(forward, *layers())), events(4, 5))
    assert "the model (Do)" in words
    assert "A loop over time cannot be captured" in words
    assert "MFPLeakyParallel" in words


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda x, a, fire, out: fire(a(x.flatten(2)))[1:].mean(0), "A loop over time"),
        (lambda x, a, fire, out: out(fire(a(x.flatten(2))).sum(0)), "bias=False"),
        (lambda x, a, fire, out: fire(a(x.flatten(2))).sum(0) + 1, "sum over time"),
        (lambda x, a, fire, out: F.linear(x.flatten(2), torch.ones(3, 20)), "Linear modules"),
        (lambda x, a, fire, out: torch.cat([a(x.flatten(2)), x.flatten(2)], 2), "in front of the conc"),
    ],
)
def test_forwards_that_cannot_be_lowered_say_why(forward: Callable[..., Any], words: str) -> None:
    assert words in refusal(prepared(Do(forward, *layers())), events(4, 5))


# arguments


@pytest.mark.parametrize(
    ("example", "error", "words"),
    [
        (torch.ones(4, 2, 20, dtype=torch.int64), TypeError, "uint8, bool or floating point"),
        (torch.full((4, 2, 20), float("nan")), ValueError, "[0, 1]"),
        (torch.full((4, 2, 20), 1.5), ValueError, "from 1.5 to 1.5"),
        (torch.full((4, 2, 20), -0.5), ValueError, "from -0.5"),
    ],
)
def test_an_example_of_the_wrong_kind_is_refused(example: Any, error: type, words: str) -> None:
    with pytest.raises(error, match="example") as caught:
        lower_graph(prepared(Do(mlp, *layers())), example)
    assert words in str(caught.value)


@pytest.mark.parametrize("levels", [0, 256, True, 2.0])
def test_levels_out_of_range_are_refused(levels: Any) -> None:
    with pytest.raises(ValueError, match="levels must be an integer from 1 to 255"):
        lower_graph(prepared(Do(mlp, *layers())), events(4, 5), levels=levels)


def test_levels_below_the_example_are_refused() -> None:
    with pytest.raises(ValueError, match="at most levels=16"):
        lower_graph(prepared(Do(shown, *layers())), images(4, 5), levels=16)
