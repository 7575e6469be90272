"""Shapes in which a model reads its input and its features, in a sequence and in a loop over time."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfp_neurons import MFP, deploy
from mfp_neurons.spikingjelly import MFPNode

from .lowering import Do, Each, check_agreement, events, neuron, norm, prepared
from .oracle import agree, exact

MEANS = torch.tensor([0.25, 0.5, 0.125, 0.75]).reshape(4, 1, 1)
BEFORE: dict[str, Callable[[Tensor], Tensor]] = {
    "a factor": lambda x: x * 0.5,
    "a factor, and one behind the flattening": lambda x: (x / 2).flatten(1) * 3,
    "a shuffle that leaves all as it is": nn.ChannelShuffle(4),
    "a roll that leaves all as it is, of a part": lambda x: torch.roll(x * 0.5, 4, 1),
    "another view": lambda x: x.flatten(1).unflatten(1, (2, 4, 6)),
    "a mean of each channel of another view": lambda x: x.flatten(1).unflatten(1, (4, 2, 6)) - MEANS,
    "a pool": lambda x: F.max_pool2d(x * 0.5, 2),
}


@pytest.mark.parametrize("head", ["linear", "convolution", "norm"])
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE.keys())
def test_a_loop_over_time_does_the_same_to_its_input_at_every_step(before, head) -> None:
    shape = before(torch.zeros(1, 4, 2, 6)).shape[1:]
    if head == "linear" or len(shape) == 1:
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(shape.numel(), 3)]
    else:
        layers = [nn.Conv2d(shape[0], 3, 1), nn.Flatten()]
        layers = ([norm(nn.BatchNorm2d, shape[0])] if head == "norm" else []) + layers

    for one in layers:
        if isinstance(one, nn.Linear | nn.Conv2d):
            nn.init.normal_(one.weight)

    def loop(x, first, fire):
        return torch.stack([fire(first(before(step))) for step in x])

    fire = MFPNode(decay_input=False, v_threshold=0.3, order=3, reset=None)
    model = prepared(Do(loop, nn.Sequential(*layers), fire)).eval()
    x = events(4, 2, 6).float()
    network = deploy.lower(model, x)
    expected = exact(model)(x.double())
    assert 0 < expected.mean() < 1
    assert (torch.from_numpy(network.run(x, backend="numpy")) == expected).all()


@pytest.mark.parametrize("shape", [(4, 2, 6), (48,)])
def test_a_flat_input_is_normalized_by_a_norm_of_each_number(shape) -> None:
    flat = Each(nn.Flatten(), norm(nn.BatchNorm1d, 48), nn.Linear(48, 3))
    check_agreement(prepared(nn.Sequential(flat, neuron(0.2))).eval(), events(*shape))


def test_channels_of_a_normalized_image_are_told_apart_where_it_is_flattened() -> None:
    model = prepared(nn.Sequential(nn.Flatten(2), nn.Linear(48, 3), neuron(0.2)))
    x = torch.rand(4, 2, 4, 2, 6, generator=torch.Generator().manual_seed(0)) * 255
    mean, std = [0.4, 0.5, 0.3, 0.2], [0.2, 0.3, 0.25, 0.5]
    x = x.to(torch.uint8)
    network = deploy.lower(model, x, mean=mean, std=std)
    rows = [torch.tensor(row, dtype=torch.float64).reshape(-1, 1, 1) for row in (mean, std)]
    expected = exact(model)((x.double() / 255 - rows[0]) / rows[1])
    assert 0 < expected.mean() < 1
    assert (torch.from_numpy(network.run(x, backend="numpy")) == expected).all()


def test_one_input_is_read_flat_and_as_a_map() -> None:
    def both(x, linear, fire, conv, fire2):
        return torch.cat([fire(linear(x.flatten(2))), fire2(conv(x)).flatten(2)], 2)

    layers = nn.Linear(48, 5), neuron(0.2), Each(nn.Conv2d(4, 3, 3, padding=1)), neuron(0.2)
    check_agreement(prepared(Do(both, *layers)), events(4, 2, 6))


def test_taps_of_each_channel_behind_attention_in_heads() -> None:
    def attention(x, q, k, v, fire, out):
        a, b, c = (one(x).unflatten(2, (2, 2)) for one in (q, k, v))
        y = ((a @ b.mT) @ c).flatten(2, 3)
        return out(fire(y).flatten(2)).mean(0)

    layers = [nn.Sequential(Each(nn.Conv1d(4, 4, 1)), neuron(0.2)) for _ in range(3)]
    fire = MFP(kernel="fir", order=2, kernel_bits="pow2", num_channels=4, v_threshold=0.5)
    with torch.no_grad():
        fire.kernel.taps.copy_(torch.tensor([[1.0, 0.5, 0.25, -1.0], [0.5, 0.25, 1.0, 2.0]]))
    seen = agree(prepared(Do(attention, *layers, fire, nn.Linear(20, 3))), events(4, 5), 1)
    assert 0.02 < seen.rates["layers.3"] < 0.98


@pytest.mark.parametrize(
    "read_out",
    [
        lambda y: y,
        lambda y: y.flatten(2),
        lambda y: y[1:],
        lambda y: y[-1],
        lambda y: y.mean(0),
        lambda y: y[2:].sum(0).flatten(1),
        lambda y: y.amax(0),
    ],
)
@pytest.mark.parametrize("of_spikes", [False, True])
def test_scores_of_every_place_come_in_the_order_of_the_model(read_out, of_spikes) -> None:
    """A linear layer over the last dimension: its features are the channels of a map, and come last."""
    fire = neuron(0.2) if of_spikes else nn.Identity()
    model = prepared(Do(lambda x, a, fire: read_out(fire(a(x))), nn.Linear(4, 3), fire))
    head = agree(model, events(5, 4), 1).graph.heads[0]
    assert head.features in {(5, 3), (15,)}
    assert (head.error.max() > 0) != of_spikes
