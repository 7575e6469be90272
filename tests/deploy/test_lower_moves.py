"""Padding, parts, shuffles, repetition and concatenation against float64, also drawn at random."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mfp_neurons import MFP, deploy
from mfp_neurons.deploy.graph import Concat, Gather
from mfp_neurons.deploy.lowering import lower_graph

from .lowering import Do, Each, check_agreement, events, neuron, norm, prepared
from .oracle import agree

MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "asymmetric zeros": lambda x: F.pad(x, (1, 0, 2, 3)),
    "a row and a column of zeros": lambda x: F.pad(x, (1, 1, 0, 1)),
    "zeros and a crop": lambda x: F.pad(x, (-1, 2, 0, -2)),
    "a constant": lambda x: F.pad(x, (1, 1), value=1.0),
    "channels of zeros": lambda x: F.pad(x, (0, 0, 0, 0, 2, 1)),
    "circular": lambda x: F.pad(x, (1, 2, 2, 0), mode="circular"),
    "reflect": lambda x: F.pad(x, (1, 2, 2, 0), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 2, 2, 0), mode="replicate"),
    "ZeroPad2d": nn.ZeroPad2d((1, 0, 2, 1)),
    "ConstantPad2d": nn.ConstantPad2d((1, 0, 2, 1), 1.0),
    "ReflectionPad2d": nn.ReflectionPad2d((1, 0, 2, 1)),
    "CircularPad2d": nn.CircularPad2d((1, 0, 2, 1)),
    "shuffle": nn.ChannelShuffle(2),
    "shuffle by views": lambda x: x.view(-1, 2, 2, 5, 6).transpose(1, 2).reshape(-1, 4, 5, 6),
    "flatten of a shuffle": lambda x: x.view(-1, 2, 2, 5, 6).transpose(1, 2).flatten(1, 2).contiguous(),
    "pixel shuffle": nn.PixelShuffle(2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(F.pad(x, (0, 0, 1, 0)), 2),
    "rows and columns": lambda x: x.transpose(2, 3),
    "channels last": lambda x: x.permute(0, 2, 3, 1),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "split": lambda x: x.split([1, 3], dim=1)[1],
    "split in chunks of one": lambda x: torch.split(x, 1, 1)[2],
    "tensor_split": lambda x: x.tensor_split(2, dim=2)[0],
    "narrow": lambda x: x.narrow(3, 1, 4),
    "slices": lambda x: x[:, 1:, ::2, :-1],
    "an index": lambda x: x[:, 2:3, ..., 1:],
    "a list": lambda x: x[:, [3, 0, 0]],
    "a buffer": lambda x: x.index_select(1, torch.tensor([2, 1])),
    "flip": lambda x: x.flip(3),
    "roll": lambda x: torch.roll(x, (1, -2), (2, 3)),
    "two branches": lambda x: torch.cat([x[:, :2], F.pad(x[:, 2:, :, 1:], (0, 1))], 1),
    "rows side by side": lambda x: torch.cat([x, x[:, :, :2]], 2),
    "columns side by side": lambda x: torch.cat([x[..., 2:], x], -1),
    "nearest": nn.Upsample(scale_factor=2),
    "nearest of a size": nn.Upsample(size=(7, 11)),
    "nearest of a fraction": nn.Upsample(scale_factor=1.7),
    "nearest of two factors": lambda x: F.interpolate(x, scale_factor=(2, 3)),
    "nearest-exact": lambda x: F.interpolate(x, size=(7, 4), mode="nearest-exact"),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=3),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES.keys())
def test_spikes_at_other_places_are_convolved_pooled_and_weighted_as_in_float64(move):
    class Moved(nn.Module):
        def forward(self, x):
            return move(x)

    channels, *places = move(torch.zeros(1, 4, 5, 6)).shape[1:]
    pooled = F.max_pool2d(torch.zeros(1, 1, *places), 2, 1).numel()

    def forward(x, first, fire, moved, second, again, pool, out):
        y = moved(fire(first(x)))
        return out(pool(again(second(y))).flatten(2)).mean(0)

    model = prepared(
        Do(
            forward,
            Each(nn.Conv2d(1, 4, 3, padding=1)),
            neuron(0.1),
            Each(Moved()),
            Each(nn.Conv2d(channels, 2, 3, padding=1), norm(nn.BatchNorm2d, 2)),
            neuron(0.1),
            Each(nn.MaxPool2d(2, 1)),
            nn.Linear(2 * pooled, 3),
        )
    )
    graph = check_agreement(model, events(1, 5, 6))
    # of zeros alone, no more than the windows reach over, nothing is written down: they are their padding
    is_padding = move is MOVES["a row and a column of zeros"]
    assert any(isinstance(op, Gather) for op in graph.ops) != is_padding
    flat = prepared(
        Do(
            lambda x, fire, moved, out: out(moved(fire(x)).flatten(2)).mean(0),
            neuron(0.3),
            Each(Moved()),
            nn.Linear(channels * places[0] * places[1], 3),
        )
    )
    check_agreement(flat, events(4, 5, 6))


@given(
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    options=st.fixed_dictionaries(
        {"kernel_size": st.integers(1, 3), "stride": st.integers(1, 3), "padding": st.integers(0, 1)}
    ),
    dilation=st.integers(1, 2),
    reader=st.sampled_from(["convolution", "of a current", "max", "mean", "two"]),
)
def test_zeros_around_a_map_are_padding_of_the_windows_that_read_it(pads, options, dilation, reader):
    """Wherever they reach no farther than a window does; what else reads them has them written down."""
    options["padding"] = min(options["padding"], options["kernel_size"] // 2)
    conv: nn.Module = nn.Conv2d(2, 3, **options, dilation=dilation)
    pool = (nn.MaxPool2d if reader == "max" else nn.AvgPool2d)(**options)
    first = nn.Conv2d(2, 2, 1) if reader == "of a current" else neuron(0.4)
    layer = pool if reader in ("max", "mean") else conv

    def forward(x, first, pad, layer, fire, out):
        y = first(x)
        z = layer(pad(y))
        return out(torch.cat([fire(z).flatten(2), pad(y).flatten(2)][: 1 + (reader == "two")], 2)).mean(0)

    padded = F.pad(torch.zeros(1, 2, 5, 4), pads)
    if min(padded.shape[2:]) + 2 * options["padding"] <= dilation * (options["kernel_size"] - 1):
        return
    size = layer(padded).numel() + (padded.numel() if reader == "two" else 0)
    of_images = [one if isinstance(one, MFP) else Each(one) for one in (first, nn.ZeroPad2d(pads), layer)]
    model = prepared(Do(forward, *of_images, neuron(0.2), nn.Linear(size, 3)))
    agree(model.eval(), events(2, 5, 4), 1)


def test_padding_of_zeros_takes_no_operation_in_front_of_a_convolution():
    """An odd one in front, as in TensorFlow; a stride; images that the model normalizes, exactly."""

    def forward(x, pad, conv, fire, out):
        return out(fire(conv(pad((x - 0.5) / 0.25))).flatten(2)).mean(0)

    layers = Each(nn.ZeroPad2d((1, 0, 1, 0))), Each(nn.Conv2d(2, 3, 3, 2)), neuron(0.3), nn.Linear(12, 3)
    model = prepared(Do(forward, *layers))
    compared = agree(model.eval(), torch.randint(0, 256, (4, 2, 2, 5, 4), dtype=torch.uint8), 255)
    assert [type(op).__name__ for op in compared.graph.ops] == ["Ones", "Neurons", "Scores"]
    (synapse, *_) = compared.graph.ops[1].synapses
    assert synapse.window.padding == (1, 1) and synapse.shape == (3, 2, 2)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate", "zeros"])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d])
def test_a_padding_mode_of_a_convolution_is_what_torch_does(kind, mode):
    shape = (2, 6) if kind is nn.Conv1d else (2, 6, 5)

    def forward(x, first, fire, out):
        return out(fire(first(x)).flatten(2)).mean(0)

    size = 3 * (6 if kind is nn.Conv1d else 30)
    conv = kind(2, 3, 5, padding=2, padding_mode=mode)
    check_agreement(prepared(Do(forward, Each(conv), neuron(0.1), nn.Linear(size, 3))), events(*shape))


@pytest.mark.parametrize("value", [float("-inf"), float("nan")])
def test_a_padding_with_no_finite_number_is_refused(value):
    with pytest.raises(deploy.LoweringError, match=r"\(ConstantPad1d\) pads with .* finite"):
        lower_graph(prepared(nn.Sequential(nn.ConstantPad1d(1, value), nn.Linear(7, 3))), events(5))


@pytest.mark.parametrize("value", [2.0, 0.5, -1.0])
def test_a_padding_with_a_number_that_spikes_are_not_is_exact_or_refused(value):
    model = prepared(
        Do(
            lambda x, fire, pad, out: out(pad(fire(x)).flatten(2)).mean(0),
            neuron(),
            nn.ConstantPad1d(1, value),
            nn.Linear(7, 3),
        )
    )
    if value == 2.0:
        check_agreement(model, events(5))
    else:
        with pytest.raises(deploy.LoweringError, match=r"pads with .* Pad with 0"):
            lower_graph(model, events(5))


def test_an_input_may_be_read_in_several_shapes():
    """Flat by one layer and as a map by another, in either order."""

    def forward(x, linear, conv, fire, out, flat_first):
        first = linear(x.flatten(2)) if flat_first else conv(x).flatten(2)
        second = conv(x).flatten(2) if flat_first else linear(x.flatten(2))
        return out(fire(first + second)).mean(0)

    for flat_first in (False, True):
        layers = nn.Linear(40, 18), Each(nn.Conv2d(2, 3, 3)), neuron(), nn.Linear(18, 3)
        model = prepared(Do(lambda *x, f=flat_first: forward(*x, f), *layers))
        agree(model.eval(), events(2, 4, 5), 1)


def test_flattened_maps_are_joined_with_a_vector():
    def forward(x, conv, fire, linear, fire2, out):
        maps = fire(conv(x)).flatten(2)
        vector = fire2(linear(x.flatten(2)))
        return out(torch.cat([maps, vector, maps[..., :3]], 2)).mean(0)

    model = prepared(
        Do(forward, Each(nn.Conv2d(2, 3, 2)), neuron(), nn.Linear(24, 5), neuron(), nn.Linear(26, 4))
    )
    check_agreement(model, events(2, 3, 4))


def test_a_linear_layer_and_a_view_make_a_map_for_a_convolution():
    """As decoders and networks with a projection have it."""

    def forward(x, linear, fire, conv, fire2, out):
        y = fire(linear(x)).unflatten(2, (2, 3, 4))
        return out(fire2(conv(y)).flatten(2)).mean(0)

    model = prepared(
        Do(
            forward,
            nn.Linear(5, 24),
            neuron(0.1),
            Each(nn.Upsample(scale_factor=2), nn.Conv2d(2, 3, 3, padding=1)),
            neuron(0.1),
            nn.Linear(144, 4),
        )
    )
    check_agreement(model, events(5))


@pytest.mark.parametrize("bits", [1, 4])
@pytest.mark.parametrize("groups", [1, 2])
def test_currents_side_by_side_are_one_current_of_all_their_channels(bits, groups):
    """Inception: convolutions of several windows, a pool and the spikes themselves, then a norm."""

    def forward(x, fire, first, second, pool, bn, fire2, out):
        y = fire(x)
        parts = [first(y), second(y), pool(first(y)), y]
        return out(fire2(bn(torch.cat(parts, 2))).flatten(2)).mean(0)

    model = prepared(
        Do(
            forward,
            neuron(0.3),
            Each(nn.Conv2d(2, 2, 3, padding=1, groups=groups)),
            Each(nn.Conv2d(2, 4, 1, bias=False), norm(nn.BatchNorm2d, 4)),
            Each(nn.MaxPool2d(3, 1, 1)),
            Each(norm(nn.BatchNorm2d, 10)),
            neuron(0.2),
            nn.Linear(200, 3),
        ),
        bits,
    )
    check_agreement(model, events(2, 4, 5))


def test_maps_whose_scales_have_little_in_common_are_put_side_by_side_as_currents():
    def forward(x, fire, out):
        y = fire(x)
        return out(torch.cat([y * 0.3, y / 7], -1)).mean(0)

    agreement = agree(prepared(Do(forward, neuron(), nn.Linear(10, 3))), events(5), 1)
    assert not any(isinstance(op, Concat) for op in agreement.graph.ops)


def test_currents_side_by_side_are_scores_too():
    def forward(x, a, b):
        return torch.cat([a(x), b(x)], -1).mean(0)

    check_agreement(prepared(Do(forward, nn.Linear(5, 2), nn.Linear(5, 3))), events(5))


@given(data=st.data())
def test_moves_behind_each_other_are_followed(data):
    names = data.draw(st.lists(st.sampled_from(sorted(MOVES)), min_size=1, max_size=3))

    def move(x):
        for name in names:
            if min(x.shape[2:]) < 5 or x.shape[1] % 4 or x.numel() // len(x) > 2000:
                break
            odd = x.shape[2] % 2 == 0 or x.shape[3] % 2 == 1  # one row of zeros is added, no column
            if "view" in name or name == "flatten of a shuffle" or (name == "pixel unshuffle" and odd):
                continue
            x = MOVES[name](x)
        return x

    size = move(torch.zeros(1, 4, 5, 6)).numel()
    model = prepared(
        Do(
            lambda x, fire, out: out(move(fire(x).flatten(0, 1)).unflatten(0, x.shape[:2]).flatten(2)),
            MFP(0.5, order=2, kernel_bits="pow2", v_threshold=0.6),
            nn.Linear(size, 3),
        )
    )
    check_agreement(model, events(4, 5, 6))


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dims", [(2, 3), (3,), (1,)])
def test_features_behind_a_mean_lie_as_it_leaves_them(dims, keepdim):
    def mean(x):
        return x.mean([one + 1 for one in dims], keepdim)

    model = prepared(
        Do(
            lambda x, first, fire, out: out(mean(fire(first(x))).flatten(2)).mean(0),
            Each(nn.Conv2d(1, 4, 3, padding=1)),
            neuron(0.1),
            nn.Linear(mean(torch.zeros(1, 1, 4, 5, 6)).numel(), 3),
        )
    )
    check_agreement(model, events(1, 5, 6))
