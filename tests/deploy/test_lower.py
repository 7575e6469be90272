"""Lowering, rule by rule: what is accepted agrees with float64, what is not says what to use instead."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfp_neurons import MFP, QuantizedMembraneLIF, quantize_weights
from mfp_neurons.deploy.errors import LoweringError
from mfp_neurons.deploy.graph import Concat, Neurons, Pool, Sum
from mfp_neurons.deploy.lowering import lower_graph

from .lowering import Do, Each, N, T, check_agreement, events, images, neuron, norm, prepared


def after(*layers: nn.Module, features: int, classes: int = 3) -> nn.Module:
    """Layers on [T, N, 4, 6, 6] spikes, and a linear layer on the mean of what they give."""

    def forward(x, first, *others):
        for layer in (first, *others[:-1]):
            x = layer(x)
        return others[-1](x.flatten(2)).mean(0)

    return Do(forward, *layers, nn.Linear(features, classes))


MAPS = {
    "a convolution": (Each(nn.Conv2d(4, 6, 3)), neuron(), 6 * 16),
    "a convolution with every option": (
        Each(nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 1), dilation=(1, 2), groups=2)),
        neuron(),
        6 * 3 * 6,
    ),
    "a depthwise convolution": (Each(nn.Conv2d(4, 8, 3, groups=4, bias=False)), neuron(), 8 * 16),
    "padding by name": (Each(nn.Conv2d(4, 3, 3, padding="same", dilation=2)), neuron(), 3 * 36),
    "no padding by name": (Each(nn.Conv2d(4, 3, 3, padding="valid")), neuron(), 3 * 16),
    "a batch norm": (Each(nn.Conv2d(4, 6, 3), norm(nn.BatchNorm2d, 6)), neuron(num_channels=6), 6 * 16),
    "a max pool of spikes": (Each(nn.Conv2d(4, 6, 3)), neuron(), Each(nn.MaxPool2d(2)), 6 * 4),
    "a max pool with partial windows": (
        Each(nn.Conv2d(4, 6, 2)),
        neuron(),
        Each(nn.MaxPool2d(2, ceil_mode=True)),
        6 * 9,
    ),
    "a max pool with overlap": (neuron(0.5), Each(nn.MaxPool2d(3, 2, padding=1)), 4 * 9),
    "a max pool with dilation": (neuron(0.5), Each(nn.MaxPool2d(2, 1, dilation=2)), 4 * 16),
    "an average pool of spikes": (neuron(0.5), Each(nn.AvgPool2d(2)), 4 * 9),
    "an average pool with padding": (neuron(0.5), Each(nn.AvgPool2d(3, 1, padding=1)), 4 * 36),
    "an average pool with another divisor": (neuron(0.5), Each(nn.AvgPool2d(2, divisor_override=3)), 4 * 9),
    "an adaptive average pool": (neuron(0.5), Each(nn.AdaptiveAvgPool2d((2, 3))), 4 * 6),
    "an adaptive max pool": (neuron(0.5), Each(nn.AdaptiveMaxPool2d(3)), 4 * 9),
    "a max pool of currents": (
        Each(nn.Conv2d(4, 6, 3), norm(nn.BatchNorm2d, 6), nn.MaxPool2d(2)),
        neuron(),
        6 * 4,
    ),
    "an average pool of currents": (
        Each(nn.Conv2d(4, 6, 3), nn.AvgPool2d(2), norm(nn.BatchNorm2d, 6)),
        neuron(),
        6 * 4,
    ),
    "a norm of spikes before a neuron": (Each(norm(nn.BatchNorm2d, 4)), neuron(), 4 * 36),
    "dropout": (nn.Dropout(0.5), Each(nn.Dropout2d()), neuron(0.5), 4 * 36),
    "identity": (nn.Identity(), neuron(0.5), 4 * 36),
    "a neuron behind a neuron": (neuron(0.5, order=2), neuron(0.7), 4 * 36),
}


@pytest.mark.parametrize("layers", MAPS.values(), ids=MAPS.keys())
@pytest.mark.parametrize("bits", [1, 1.58, 2, 4, 8])
def test_layers_on_maps_agree_with_float64(layers: tuple[Any, ...], bits: float) -> None:
    *chain, features = deepcopy(layers)
    model = prepared(after(*chain, features=features), bits)
    check_agreement(model, events(4, 6, 6))


def test_layers_on_sequences_of_features_agree_with_float64() -> None:
    chain = [
        Each(nn.Conv1d(3, 6, 3, stride=2, padding=1), norm(nn.BatchNorm1d, 6), nn.MaxPool1d(2)),
        neuron(),
        Each(nn.Conv1d(6, 4, 3, padding="same"), nn.AvgPool1d(2)),
        neuron(0.05),
        Each(nn.AdaptiveAvgPool1d(1)),
    ]
    check_agreement(prepared(after(*chain, features=4)), events(3, 16))


def test_linear_layers_agree_with_float64() -> None:
    chain = [Each(nn.Linear(16, 12), norm(nn.BatchNorm1d, 12)), neuron(num_channels=12)]
    graph = check_agreement(prepared(after(*chain, features=12)), events(16))
    assert graph.input.shape == (16, 1, 1)


def test_a_linear_layer_over_the_channels_of_every_place_is_a_convolution() -> None:
    def forward(x, mix, fire, out):
        y = mix(x.transpose(2, 3)).transpose(2, 3)  # [T, N, L, C] in between
        return out(fire(y).flatten(2)).mean(0)

    model = Do(forward, nn.Linear(5, 7), neuron(), nn.Linear(7 * 6, 3))
    graph = check_agreement(prepared(model), events(5, 6))
    assert graph.ops[0].shape == (7, 1, 6)


def block(*layers: nn.Module) -> nn.Module:
    return Each(nn.Conv2d(4, 4, 3, padding=1, bias=False), norm(nn.BatchNorm2d, 4), *layers)


def test_residual_sums_of_currents_stay_in_fixed_point() -> None:
    def forward(x, a, b, fire, out):
        y = b(x)
        y += a(x)
        return out(fire(y + 0.5 * x - 0.25).flatten(2)).mean(0)

    model = prepared(Do(forward, block(), block(), neuron(), nn.Linear(144, 3)))
    graph = check_agreement(model, events(4, 6, 6))
    (layer,) = [op for op in graph.ops if isinstance(op, Neurons)]
    assert len(layer.synapses) == 3
    assert 0 < layer.error.max() < 1e-6


def test_residual_sums_of_spikes_are_small_counts() -> None:
    def forward(x, a, first, b, second, out):
        one = first(a(x))
        return out((sum([one, 2 * second(b(one)), x])).flatten(2)).mean(0)

    model = Do(forward, block(), neuron(), block(), neuron(), nn.Linear(144, 3))
    graph = check_agreement(prepared(model), events(4, 6, 6))
    made = [op for op in graph.ops if isinstance(op, Sum)]
    assert [(op.name, op.weights, op.top) for op in made] == [("add", (1, 2), 3), ("add (2)", (1, 1), 4)]


def test_differences_of_spikes_and_scaled_ones_become_currents() -> None:
    def forward(x, a, fire, last, out):
        spikes = fire(a(x))
        return out(last(-spikes + x * 0.5 + (1 - spikes) / 4).flatten(2)).mean(0)

    model = Do(forward, block(), neuron(), neuron(0.2), nn.Linear(144, 3))
    check_agreement(prepared(model), events(4, 6, 6))


def test_zeros_and_ones_are_numbers() -> None:
    def forward(x, a, fire, out):
        y = a(x) + torch.zeros_like(x) - 0.5 * x.new_ones(4, 1, 1) + torch.ones_like(x)
        return out(fire(y).flatten(2)).mean(0)

    check_agreement(prepared(Do(forward, block(), neuron(), nn.Linear(144, 3))), events(4, 6, 6))


def test_numbers_for_each_channel_fold() -> None:
    gain, shift = torch.tensor([0.5, -1.0, 2.0, 0.0]), torch.tensor([[[0.1]], [[0.2]], [[-0.3]], [[0.4]]])

    def forward(x, a, fire, out):
        y = a(x) * gain.to(x.dtype)[:, None, None] + shift.to(x.dtype)
        return out(fire(y / gain.to(x.dtype).abs().add(1)[:, None, None]).flatten(2)).mean(0)

    check_agreement(prepared(Do(forward, block(), neuron(), nn.Linear(144, 3))), events(4, 6, 6))


def test_concatenated_channels_are_read_side_by_side() -> None:
    def forward(x, a, fire, b, other, out):
        both = torch.cat([fire(a(x)), x, 0.5 * other(b(x))], dim=2)
        return out(both.flatten(2)).mean(0)

    model = Do(forward, block(), neuron(), block(), neuron(), nn.Linear(12 * 36, 3))
    graph = check_agreement(prepared(model), events(4, 6, 6))
    (made,) = [op for op in graph.ops if isinstance(op, Concat)]
    assert (made.weights, made.shape) == ((2, 2, 1), (12, 6, 6))


def test_concatenated_flat_maps_are_those_of_their_channels() -> None:
    def forward(x, a, fire, out):
        return out(torch.cat((fire(a(x)).flatten(2), x.flatten(2)), -1)).mean(0)

    check_agreement(prepared(Do(forward, block(), neuron(), nn.Linear(288, 3))), events(4, 6, 6))


def test_a_layer_that_is_used_twice_is_written_twice() -> None:
    def forward(x, a, fire, out):
        return out(fire(a(fire(a(x)))).flatten(2)).mean(0)

    graph = check_agreement(prepared(Do(forward, block(), neuron(), nn.Linear(144, 3))), events(4, 6, 6))
    assert [op.name for op in graph.ops[:-1]] == ["layers.1", "layers.1 (2)"]


def test_what_nobody_reads_is_left_out() -> None:
    def forward(x, a, fire, b, unread, out):
        unread(b(x))
        return out(fire(a(x)).flatten(2)).mean(0)

    model = Do(forward, block(), neuron(), block(), neuron(), nn.Linear(144, 3))
    graph = check_agreement(prepared(model), events(4, 6, 6))
    assert [op.name for op in graph.ops] == ["layers.1", "layers.4"]


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


def test_a_network_may_have_no_neurons() -> None:
    graph = check_agreement(prepared(nn.Sequential(nn.Linear(5, 3))), events(5))
    assert [op.name for op in graph.ops] == ["0"]


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


def test_other_levels_can_be_named() -> None:
    example = torch.randint(0, 17, (T, N, 20)) / 16
    graph = check_agreement(prepared(Do(mlp, *layers())), example, levels=16)
    assert graph.input.top == 16


REPEATS: dict[str, Callable[[Tensor], Tensor]] = {
    "repeat": lambda x: x.unsqueeze(0).repeat(T, 1, 1, 1),
    "repeat with a new dimension": lambda x: x.repeat(T, 1, 1, 1),
    "expand": lambda x: x[None].expand(T, -1, -1, -1),
    "expand with a new dimension": lambda x: x.expand(T, *x.shape),
    "stack": lambda x: torch.stack([x] * T),
    "in place": lambda x: x.clone().unsqueeze_(0).repeat(T, 1, 1, 1),
}


@pytest.mark.parametrize("repeat", REPEATS.values(), ids=REPEATS.keys())
def test_a_model_may_repeat_its_image_itself(repeat: Callable[[Tensor], Tensor]) -> None:
    model = prepared(Do(lambda x, *rest: mlp(repeat(x), *rest), *layers()))
    graph = check_agreement(model, images(4, 5))
    assert graph.input.static
    assert graph.steps == T


def test_a_model_may_repeat_what_its_first_synapse_gives() -> None:
    def forward(x, a, fire, out):
        return out(fire(a(x.flatten(1)).expand(T, -1, -1))).mean(0)

    graph = check_agreement(prepared(Do(forward, *layers())), images(4, 5))
    assert graph.input.static


def test_a_single_step_is_a_sequence_too() -> None:
    check_agreement(prepared(Do(mlp, *layers())), events(4, 5)[:1])
    check_agreement(prepared(Do(lambda x, *rest: mlp(x[None], *rest), *layers())), images(4, 5))


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


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ("exp", {"order": None}),
        ("exp", {"order": 2}),
        ("fir", {"order": 3, "num_channels": 12}),
        ("matrix", {"order": None, "time_steps": T}),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_every_kernel_agrees(kernel: str, options: dict[str, Any], strict: bool) -> None:
    made = neuron(kernel=kernel, strict=strict, **options)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name != "kernel.decay_logit":
                parameter.add_(torch.randn_like(parameter) * 0.3)
    first, _, last = layers()
    check_agreement(prepared(Do(mlp, first, made, last)), events(4, 5))


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


class Louder(MFP):
    def forward(self, x_seq):
        return 2 * super().forward(x_seq)


MODULES: dict[str, tuple[nn.Module, str, str]] = {
    "layer norm": (nn.LayerNorm(6), "LayerNorm", "BatchNorm"),
    "group norm": (Each(nn.GroupNorm(2, 4)), "GroupNorm", "BatchNorm"),
    "instance norm": (Each(nn.InstanceNorm2d(4)), "InstanceNorm2d", "BatchNorm"),
    "a norm of the batch": (Each(nn.BatchNorm2d(4, track_running_stats=False)), "BatchNorm2d", "fixed"),
    "relu": (nn.ReLU(), "ReLU", "MFPNode"),
    "relu in place": (nn.ReLU(inplace=True), "ReLU", "MFPNode"),
    "sigmoid": (nn.Sigmoid(), "Sigmoid", "MFPNode"),
    "softmax": (nn.Softmax(-1), "Softmax", "without it"),
    "a transposed convolution": (Each(nn.ConvTranspose2d(4, 4, 3)), "ConvTranspose2d", "stride"),
    "upsampling": (Each(nn.Upsample(scale_factor=2)), "Upsample", "resolution"),
    "a reflected border": (
        Each(quantize_weights(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"))),
        "QuantizedConv2d",
        "padding_mode='zeros'",
    ),
    "too much padding": (
        Each(quantize_weights(nn.Conv2d(4, 4, 1, padding=1))),
        "QuantizedConv2d",
        "less padding",
    ),
    "an average without its border": (
        Each(nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)),
        "AvgPool2d",
        "count_include_pad=True",
    ),
    "an average over partial windows": (
        Each(nn.AvgPool2d(4, 4, ceil_mode=True)),
        "AvgPool2d",
        "ceil_mode=False",
    ),
    "uneven adaptive windows": (Each(nn.AdaptiveAvgPool2d(4)), "AdaptiveAvgPool2d", "divides"),
    "places of the largest": (Each(nn.MaxPool2d(2, return_indices=True)), "MaxPool2d", "return_indices"),
    "windows that see padding alone": (
        Each(nn.MaxPool2d((1, 2), 1, (0, 1), dilation=(1, 7))),
        "MaxPool2d",
        "dilation=1",
    ),
    "an Lp pool": (Each(nn.LPPool2d(2, 2)), "LPPool2d", "max and average pools"),
    "a cut channel": (Each(nn.PixelShuffle(2)), "PixelShuffle", "resolution"),
    "zeros around": (Each(nn.ZeroPad2d(1)), "ZeroPad2d", "padding of the convolution"),
    "recurrence": (Do(lambda x, r: r(x.flatten(2)), nn.LSTM(144, 4)), "LSTM", "order"),
    "torch's attention": (
        Do(lambda x, a: a(x, x, x), nn.MultiheadAttention(6, 2)),
        "MultiheadAttention",
        "add them",
    ),
    "a transformer": (nn.TransformerEncoderLayer(6, 2), "MultiheadAttention", "add them"),
    "a plain threshold": (Do(lambda x: (x > 0.5).float()), "Do", "MFP"),
    "a product of spikes": (Do(lambda x: x * x), "Do", "'AND' and 'IAND'"),
    "SEW IAND": (Do(lambda x: x * (1.0 - x)), "Do", "'AND' and 'IAND'"),
    "attention": (Do(lambda x: x @ x.transpose(-1, -2)), "Do", "attention"),
    "a value that is looked at": (Do(lambda x: x if x.any() else -x), "Do", "numbers of a tensor"),
    "a number taken out": (Do(lambda x: x * x.item()), "Do", "numbers of a tensor"),
    "half of the channels": (Do(lambda x: x[:, :, :2]), "Do", "whole maps"),
    "halves of the channels": (Do(lambda x: x.chunk(2, 2)[0]), "Do", "whole maps"),
    "repeated channels": (Do(lambda x: x.repeat(1, 1, 2, 1, 1)), "Do", "repeated, over time"),
    "a mean over the batch": (Do(lambda x: x.mean(1)), "Do", "batch"),
    "a mean of everything": (Do(lambda x: x.mean()), "Do", "batch"),
    "channels that move": (
        Do(lambda x, c: c(x.transpose(2, 3)), Each(quantize_weights(nn.Conv2d(6, 4, 3)))),
        "QuantizedConv2d",
        "flattened for a linear layer",
    ),
    "numbers that repeat it": (Do(lambda x: x + torch.zeros(3, 1, 1, 1, 1, 1)), "Do", "repeats numbers"),
    "a neuron that does more": (Louder(), "Louder", "a module around it"),
    "numbers for each place": (Do(lambda x: x * torch.rand(6)), "Do", "each channel"),
    "a view of which a part is written": (Do(lambda x: (x.flatten(2), x.add_(1))[0]), "Do", "Use add"),
    "a vmapped function": (Do(lambda x: torch.vmap(lambda y: y + 1)(x)), "Do", ""),
    "an attribute that is set": (Do(lambda x: setattr(x, "data", x + 1) or x), "Do", "no integer network"),
    "a baseline with a potential": (QuantizedMembraneLIF(0.5), "QuantizedMembraneLIF", "convert"),
    "unknown words": (Do(lambda x: torch.fft.rfft(x).real), "Do", "no integer network"),
}


@pytest.mark.parametrize("case", MODULES.values(), ids=MODULES.keys())
def test_what_is_not_in_the_grammar_is_named_with_its_path_its_type_and_an_alternative(
    case: tuple[nn.Module, str, str],
) -> None:
    layer, kind, instead = deepcopy(case)
    model = nn.Sequential(nn.Identity(), nn.Sequential(layer))
    words = refusal(model)
    assert "'1.0" in words
    assert f"({kind})" in words
    assert instead in words


def test_flattened_maps_beside_vectors_need_two_layers_whose_sum_is_the_same() -> None:
    def beside(x, first, fire, other, second, out):
        return out(torch.cat((fire(first(x)).flatten(2), second(other(x.flatten(2)))), 2)).mean(0)

    def added(x, first, fire, other, second, left, right):
        return (left(fire(first(x)).flatten(2)) + right(second(other(x.flatten(2))))).mean(0)

    parts = block(), neuron(), nn.Linear(144, 5), neuron()
    assert "[4, 2, 144] of a map [4, 6, 6], [4, 2, 5] of a map [5]). Give each a linear layer" in refusal(
        prepared(Do(beside, *deepcopy(parts), nn.Linear(149, 3)))
    )
    check_agreement(prepared(Do(added, *parts, nn.Linear(144, 3), nn.Linear(5, 3))), events(4, 6, 6))


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
        (lambda x, a, fire, out: (out(fire(a(x.flatten(2)))).mean(0), x), "a tuple of 2"),
        (lambda x, a, fire, out: {"scores": a(x.flatten(2))}, "a dict"),
        (lambda x, a, fire, out: torch.zeros(3), "a Tensor"),
        (lambda x, a, fire, out: fire(a(x.flatten(2))).transpose(0, 1), "[N, T, 12]"),
        (lambda x, a, fire, out: fire(a(x.flatten(2)))[-2:], "x[-k:].mean(0)"),
        (lambda x, a, fire, out: fire(a(x.flatten(2)))[1:].mean(0), "A loop over time"),
        (lambda x, a, fire, out: fire(a(x.flatten(2)).transpose(0, 1)), "time first"),
        (lambda x, a, fire, out: fire(a(x.flatten(2)).flatten(0, 1)), "Neurons take whole sequences"),
        (lambda x, a, fire, out: fire(a(x.flatten(2))[-2:]).mean(0), "behind the last neuron"),
        (lambda x, a, fire, out: out(fire(a(x.flatten(2))).sum(0)), "bias=False"),
        (lambda x, a, fire, out: fire(a(x.flatten(2))).sum(0) + 1, "sum over time"),
        (lambda x, a, fire, out: F.linear(x.flatten(2), torch.ones(3, 20)), "Linear modules"),
        (lambda x, a, fire, out: F.dropout(fire(a(x.flatten(2)))).mean(0), "training=self.training"),
        (lambda x, a, fire, out: fire(a(x.flatten(2))).div(0), "divides by 0"),
        (lambda x, a, fire, out: a(x.flatten(2)).long(), "of numbers that are not whole"),
        (lambda x, a, fire, out: a(x[:, :, 0]), "whole maps"),
        (lambda x, a, fire, out: torch.cat([a(x.flatten(2)), x.flatten(2)], 2), "in front of the conc"),
    ],
)
def test_forwards_that_cannot_be_lowered_say_why(forward: Callable[..., Any], words: str) -> None:
    assert words in refusal(prepared(Do(forward, *layers())), events(4, 5))


def test_errors_of_the_model_itself_say_where_they_came_from() -> None:
    words = refusal(prepared(nn.Sequential(Each(nn.Linear(7, 3)))))
    assert "'0.0' (QuantizedLinear) calls linear on [8, 4, 6, 6]" in words

    def forward(x):
        raise KeyError("nothing here")

    assert "the model (Do) raised KeyError: 'nothing here'" in refusal(Do(forward))


# arguments


@pytest.mark.parametrize(
    ("example", "error", "words"),
    [
        ([1.0], TypeError, "torch.Tensor"),
        (torch.ones(4, 2, 20, dtype=torch.int64), TypeError, "uint8, bool or floating point"),
        (torch.ones(4), ValueError, "[T, N, *] or [N, *]"),
        (torch.ones(0, 2, 20), ValueError, "empty"),
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


def test_a_model_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        lower_graph(lambda x: x, events(4, 5))  # type: ignore[arg-type]
