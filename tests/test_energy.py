"""What a report says of operations and energy, beside hand counts and a simulation that counts one by one."""

import itertools
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP, report
from mfp_neurons.baseline import QuantizedMembraneLIF
from mfp_neurons.pooling import TimePool
from mfp_neurons.quantize import codes, quantize_weights
from mfp_neurons.reporting import Report

PICO = 1e-12


def synapses(weights: list[list[float]], bits: float | None = 1) -> nn.Module:
    """A linear layer of these weights, quantized to the same numbers if they are to have bits."""
    layer = nn.Linear(len(weights[0]), len(weights), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
    return layer if bits is None else quantize_weights(layer, bits)


def train(*steps: list[float]) -> Tensor:
    """A sequence [T, 1, features] of one sample."""
    return torch.tensor(steps, dtype=torch.float32).unsqueeze(1)


def energies(costs: Report) -> tuple[float, float]:
    """In picojoules: all steps at once, as a stream."""
    return costs.energy_joules / PICO, costs.streaming_energy_joules / PICO


# --- counted by hand ----------------------------------------------------------------------------------------


def test_a_lif_of_few_bits_adds_integers() -> None:
    lif = QuantizedMembraneLIF(decay=0.5, bits=2)
    costs = report(nn.Sequential(synapses([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]), lif), train([1, 0], [1, 1]))
    assert costs.synaptic_operations == costs.streaming_synaptic_operations == 3 * 3
    # three neurons, two steps: decay, addition, comparison
    assert costs.neuron_operations == costs.streaming_neuron_operations == 3 * 2 * 3
    assert energies(costs) == pytest.approx([9 * 0.1 + 6 * (0.2 + 0.1 + 0.1)] * 2)


@pytest.mark.parametrize("bits", [1, None])
def test_a_float_potential_computes_with_floats(bits: int | None) -> None:
    lif = QuantizedMembraneLIF(decay=0.5, bits=None)
    costs = report(nn.Sequential(synapses([[1.0, 1.0]], bits), lif), train([1, 0], [1, 1]))
    added = 0.1 if bits else 0.9
    assert energies(costs) == pytest.approx([3 * added + 2 * (3.7 + 0.9 + 0.9)] * 2)


def test_an_infinite_exponential_is_a_potential() -> None:
    costs = report(nn.Sequential(synapses([[1.0, 1.0]]), MFP(0.9)), train([1, 0], [1, 1]))
    assert costs.neuron_operations == 2 * 3
    assert energies(costs)[0] == pytest.approx(3 * 0.1 + 2 * 5.5)


@pytest.mark.parametrize(
    ("kernel_bits", "tap", "compared"), [("pow2", 0.1, 0.1), (3, 0.3, 0.1), (None, 4.6, 0.9)]
)
def test_taps_of_a_channel_repeat_the_operations_of_remembered_spikes(
    kernel_bits: Any, tap: float, compared: float
) -> None:
    neuron = MFP(0.5, kernel="fir", order=3, num_channels=2, kernel_bits=kernel_bits)
    net = nn.Sequential(synapses([[1.0, 1.0], [1.0, -1.0]]), neuron)
    costs = report(net, train([1, 0], [1, 0], [0, 0], [0, 1]))
    assert costs.synaptic_operations == 3 * 2
    assert costs.streaming_synaptic_operations == (3 + 3 + 1) * 2
    # taps at steps 0, 1, 2, 3 of two neurons, and a comparison at each
    assert costs.neuron_operations == costs.streaming_neuron_operations == 2 * (1 + 2 + 3 + 3) + 2 * 4
    neurons = 18 * tap + 8 * compared
    assert energies(costs) == pytest.approx([6 * 0.1 + neurons, 14 * 0.1 + neurons])


def test_one_tap_set_for_the_layer_sends_each_trace_once() -> None:
    neuron = MFP(0.5, kernel="fir", order=3, kernel_bits="pow2")
    net = nn.Sequential(synapses([[1.0, 1.0], [1.0, -1.0]]), neuron)
    costs = report(net, train([1, 0], [1, 0], [0, 0], [0, 1]))
    # traces that are not zero: of the first neuron at steps 0, 1, 2, 3, of the second at step 3
    assert costs.streaming_synaptic_operations == 5 * 2
    # seven spikes are added up, and the two neurons compare; all at once, their taps weigh
    assert costs.streaming_neuron_operations == 7 + 2 * 4
    assert costs.neuron_operations == 2 * (1 + 2 + 3 + 3) + 2 * 4
    assert energies(costs) == pytest.approx([6 * 0.1 + 18 * 0.1 + 8 * 0.1, 10 * 0.1 + 7 * 0.1 + 8 * 0.1])


def test_taps_that_cancel_send_nothing() -> None:
    neuron = MFP(0.5, kernel="fir", order=2, kernel_bits="pow2")
    with torch.no_grad():
        neuron.kernel.taps.copy_(torch.tensor([1.0, -1.0]))
    costs = report(nn.Sequential(synapses([[1.0]]), neuron), train([1], [1], [1], [0]))
    assert costs.streaming_synaptic_operations == 2  # the first spike, and the last one taken away again


def test_a_trace_of_several_bits_is_multiplied_by_a_weight_of_several_bits() -> None:
    """Three spikes of weight 3 once more cost less than a product of 2 bits: nothing is traced."""
    layer = quantize_weights(nn.Linear(1, 1, bias=False), 4)
    neuron = MFP(0.5, kernel="fir", order=2, kernel_bits="pow2")
    costs = report(nn.Sequential(layer, neuron), train([1], [0], [1], [0]))
    assert costs.streaming_synaptic_operations == 4  # as many as there are traces
    assert costs.streaming_neuron_operations == (1 + 2 + 2 + 2) + 4
    assert energies(costs)[1] == pytest.approx(4 * 0.1 + 7 * 0.1 + 4 * 0.1)


def test_a_window_of_time_makes_the_layers_behind_it_rarer() -> None:
    net = nn.Sequential(
        synapses([[1.0], [1.0]]),
        MFP(0.5, order=1, v_threshold=0.5),
        TimePool(2),
        synapses([[1.0, 1.0]]),
        MFP(0.5, kernel="fir", order=2, num_channels=1, kernel_bits="pow2"),
    )
    costs = report(net, train([1], [0], [0], [1], [0], [0]))
    first, second = costs.neurons
    assert (first.steps, second.steps) == (6, 3)
    assert first.neuron_operations == 2 * 6 * 2  # a tap and a comparison
    assert second.neuron_operations == (1 + 2 + 2) + 3
    # two spikes in each of windows 0 and 1, which windows 1 and 2 remember
    assert costs.synapses[1].synaptic_operations == 4
    assert costs.synapses[1].streaming_synaptic_operations == 4 + 4


def test_products_of_kept_real_inputs_repeat_and_those_of_kept_currents_do_not() -> None:
    x = torch.rand(405, 1, 2)  # more values than 8 bits number
    taps = 1 + 2 + 3 * 403
    neuron = MFP(0.5, kernel="fir", order=3, num_channels=4, kernel_bits="pow2")
    wide = report(nn.Sequential(quantize_weights(nn.Linear(2, 4, bias=False), 8), neuron), x)
    assert (wide.state[0].what, wide.state[0].values) == ("real values", 2)
    assert wide.macs == 8 * 405
    assert wide.streaming_macs == 8 * taps
    # float currents: additions of floats, and the taps only shift
    neurons = 4 * taps * 0.9 + 4 * 405 * 0.9
    assert energies(wide) == pytest.approx([8 * 405 * 4.6 + neurons, 8 * taps * 4.6 + neurons])
    neuron = MFP(0.5, kernel="fir", order=3, num_channels=1, kernel_bits="pow2")
    narrow = report(nn.Sequential(nn.Linear(2, 1, bias=False), neuron), x)
    assert narrow.state[0].what == "inputs"
    assert narrow.streaming_macs == narrow.macs == 2 * 405


@pytest.mark.parametrize(
    ("weight_bits", "levels", "picojoules"),
    [
        (8, 255, 0.2 + 0.1),
        (4, 15, 0.2 + 0.1),
        (1, 255, 0.1),
        (1, None, 0.9),
        (8, None, 4.6),
        (None, 255, 4.6),
    ],
)
def test_a_mac_is_priced_by_the_bits_of_weight_and_input(
    weight_bits: int | None, levels: int | None, picojoules: float
) -> None:
    layer = nn.Linear(40, 3)
    layer = layer if weight_bits is None else quantize_weights(layer, weight_bits)
    x = torch.rand(60, 40)
    costs = report(layer, x if levels is None else (x * levels).round() / levels)
    assert costs.synapses[0].input_bits == (32 if levels is None else levels.bit_length())
    assert energies(costs) == pytest.approx([costs.macs * picojoules] * 2)


def test_own_spikes_that_come_back_are_additions_of_the_neuron() -> None:
    neuron = MFP(0.5, order=1, kernel_bits="pow2", v_threshold=0.5, reset="feedback", reset_order=2)
    with torch.no_grad():
        neuron.feedback.taps.copy_(torch.tensor([0.25, 0.125]))
    costs = report(nn.Sequential(synapses([[1.0]]), neuron), train([1], [0], [1], [0]))
    # its spikes at steps 0 and 2 meet two taps and one
    assert costs.feedback_additions == 3
    assert costs.neuron_operations == costs.streaming_neuron_operations == 4 + 4 + 3
    assert energies(costs) == pytest.approx([2 * 0.1 + 11 * 0.1] * 2)


def test_a_read_out_that_never_fires_compares_nothing() -> None:
    costs = report(nn.Sequential(synapses([[1.0]]), MFP(0.9, v_threshold=float("inf"))), train([1], [0]))
    assert costs.neuron_operations == 2 * 2


def test_neurons_whose_taps_weigh_kept_inputs_repeat_nothing() -> None:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    if not hasattr(neuron, "SlidingPSN"):
        pytest.skip("not in this SpikingJelly")
    costs = report(
        nn.Sequential(synapses([[1.0, 1.0]]), neuron.SlidingPSN(k=3, step_mode="m")), train(*[[1, 1]] * 4)
    )
    assert costs.streaming_synaptic_operations == costs.synaptic_operations == 4 * 2
    assert costs.neuron_operations == (1 + 2 + 3 + 3) + 4
    assert energies(costs) == pytest.approx([8 * 0.1 + 9 * 4.6 + 4 * 0.9] * 2)


def test_a_pooling_behind_the_synapses_keeps_them_from_sending_traces() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.synapse = synapses([[1.0], [1.0]])
            self.neuron = MFP(0.5, kernel="fir", order=2, kernel_bits="pow2")

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(self.synapse(x).amax(-1, keepdim=True))

    costs = report(Pooled(), train([1], [1], [0]))
    assert costs.streaming_synaptic_operations == (2 + 2) * 2  # each spike again, though the taps are shared


@pytest.mark.parametrize("weight_bits", [1, 8])
def test_traces_of_real_inputs_are_wider_and_sent_where_that_is_cheaper(weight_bits: int) -> None:
    levels = torch.arange(256).float().reshape(64, 1, 4) / 255
    neuron = MFP(0.5, kernel="fir", order=3, kernel_bits="pow2")
    layer = quantize_weights(nn.Linear(4, 6, bias=False), weight_bits)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -1.0]).repeat(6, 2))
    costs = report(nn.Sequential(layer, neuron), levels)
    remembered = 1 + 2 + 3 * 62
    assert (costs.state[0].what, costs.macs) == ("real values", 64 * 4 * 6)
    if weight_bits == 1:  # shifts and additions of four inputs, then additions through the synapses
        assert costs.streaming_macs == costs.macs
        assert costs.streaming_neuron_operations == 4 * remembered + 6 * 64
        assert energies(costs)[1] == pytest.approx(0.1 * (64 * 24 + 4 * remembered + 6 * 64))
    else:  # 8 bits times a trace of 11, 3.2 pJ, are more than three products of 0.3
        assert costs.streaming_macs == remembered * 24
        assert energies(costs)[1] == pytest.approx(0.3 * remembered * 24 + 0.1 * (6 * remembered + 6 * 64))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor, int]:
    """A convolution of 1-bit weights, spikes for it [T, N, C, H, W], and how many tap sets are behind it."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    groups, sets = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2, 4]))
    options = {"stride": draw(st.integers(1, 2)), "padding": draw(st.integers(0, 1)), "groups": groups}
    layer = quantize_weights(nn.Conv2d(2, 4, 3, bias=False, **options), 1)
    return layer, (torch.rand(draw(st.integers(2, 5)), 2, 2, 5, 4) < 0.2).float(), sets


class Convolved(nn.Module):
    """A convolution and neurons, all steps in one call or one step a call."""

    def __init__(self, layer: nn.Module, neuron: nn.Module) -> None:
        super().__init__()
        self.layer, self.neuron = layer, neuron

    def forward(self, x_seq: Tensor) -> Tensor:
        return self.neuron(self.layer(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2]))


@settings(deadline=None, max_examples=30)
@given(convolutions())
def test_traces_of_maps_are_sent_as_a_convolution_with_ones_for_weights_says(
    case: tuple[nn.Module, Tensor, int],
) -> None:
    layer, spikes, sets = case
    options: dict[str, Any] = {"num_channels": 4, "groups": sets} if sets > 1 else {}
    neuron = MFP(0.5, kernel="fir", order=3, kernel_bits="pow2", **options)
    with torch.no_grad():
        neuron.kernel.taps.copy_(torch.randint(-2, 3, neuron.kernel.taps.shape) / 2)
    costs = report(Convolved(layer, neuron), spikes)
    ones = nn.Conv2d(2, 4, 3, bias=False, stride=layer.stride, padding=layer.padding, groups=layer.groups)
    nn.init.ones_(ones.weight)
    taps = neuron.kernel().taps.detach().reshape(3, -1).expand(-1, 4)
    steps, neurons = len(spikes), costs.neurons[0].neurons
    traced = added = again = 0.0
    for channel, t in itertools.product(range(4), range(steps)):
        lags = range(min(t + 1, 3))
        with torch.no_grad():
            trace = sum(taps[lag, channel] * spikes[t - lag] for lag in lags)
            traced += float(ones((trace != 0).float())[:, channel].sum())
            again += sum(float(ones(spikes[t - lag])[:, channel].sum()) for lag in lags)
        # the channels of a group share what is added up
        added += sum(float(spikes[t - lag].sum()) for lag in lags if taps[lag, channel]) / (4 // sets)
    with_traces, without = (traced + added) / 2, again / 2 + neurons * (3 * steps - 3)
    assert energies(costs)[1] == pytest.approx(0.1 * (min(with_traces, without) + neurons * steps))


def test_steps_that_a_function_of_the_model_drops_are_no_error() -> None:
    class Shortened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.neuron = synapses([[1.0]]), MFP(0.5, order=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(self.layer(x)[:2])

    costs = report(Shortened(), train([1], [1], [1], [0], [0]))
    assert costs.synaptic_operations == costs.streaming_synaptic_operations == 3


def test_one_step_a_call_counts_as_all_steps_in_one() -> None:
    jelly = pytest.importorskip("spikingjelly.activation_based")
    from spikingjelly.activation_based import functional, layer

    from mfp_neurons import MFPNode

    net = nn.Sequential(
        quantize_weights(layer.Linear(5, 6, bias=False), 1),
        MFPNode(2.0, decay_input=False, reset=None, v_threshold=0.3, order=3, kernel_bits="pow2"),
        quantize_weights(layer.Linear(6, 4, bias=False), 1),
        MFPNode(2.0, decay_input=False, reset=None, order=2, kernel="fir", num_channels=4),
    )
    assert jelly
    x_seq = (torch.rand(7, 3, 5) < 0.4).float()
    steps = report(net, x_seq, run=lambda net, x_seq: [net(x) for x in x_seq])
    functional.set_step_mode(net, "m")
    at_once = report(net, x_seq)
    assert steps.synapses == at_once.synapses
    for one, other in zip(steps.neurons, at_once.neurons, strict=True):
        assert (one.joules, one.streaming_joules) == (other.joules, other.streaming_joules)


# --- counted one by one -------------------------------------------------------------------------------------


@dataclass
class Count:
    """Operations of a stream, and their energy in picojoules."""

    synaptic: int = 0
    neuron: int = 0
    energy: float = 0.0

    def add(self, picojoules: float) -> None:
        self.neuron += 1
        self.energy += picojoules

    def send(self, picojoules: float) -> None:
        self.synaptic += 1
        self.energy += picojoules


def price(weight_bits: float | None, bits: float | None) -> float:
    """Of an operation of a synapse whose weight and value have so many bits; None: a float."""
    is_float = None in (weight_bits, bits)
    added = 0.9 if is_float else 0.1
    if (weight_bits or 99) < 2 or (bits or 99) < 2:
        return added
    widest = max(weight_bits or 99, bits or 99)
    return added + (3.7 if is_float else 0.2 if widest <= 8 else 3.1)


def simulate(
    x: list[list[int]],
    weight: list[list[int]],
    taps: list[list[Fraction]],
    sets: list[int],
    traced: bool,
    prices: dict[str, Any],
) -> tuple[Count, list[list[Fraction]]]:
    """One sample of a stream that keeps past spikes: what it does, and the potential at each step.

    Args:
        x: spikes [T][inputs].
        weight: codes [outputs][inputs].
        taps: [G][K].
        sets: the tap set of each output.
        traced: whether traces are sent, or remembered spikes again.
        prices: "synapse", "tap", "spike" (that a trace adds up) and "compare".
    """
    count, potentials = Count(), []
    for t in range(len(x)):
        u = [Fraction(0)] * len(weight)
        lags = range(min(t + 1, len(taps[0])))
        if traced:
            for g, i in itertools.product(range(len(taps)), range(len(x[0]))):
                trace = Fraction(0)
                for lag in lags:
                    if taps[g][lag] and x[t - lag][i]:
                        trace += taps[g][lag]
                        count.add(prices["spike"])
                for o, row in enumerate(weight):
                    if sets[o] == g and row[i] and trace:
                        u[o] += row[i] * trace
                        count.send(prices["trace"])
        else:
            for o, row in enumerate(weight):
                for lag in lags:
                    current = 0
                    for i, w in enumerate(row):
                        if w and x[t - lag][i]:
                            current += w
                            count.send(prices["synapse"])
                    u[o] += taps[sets[o]][lag] * current
                    count.add(prices["tap"])
        for _ in weight:
            count.add(prices["compare"])
        potentials.append(u)
    return count, potentials


def prices_of_a_layer(
    weight_bits: float | None, kernel_bits: Any, taps: list[list[Fraction]]
) -> dict[str, float]:
    trace_bits = None
    if kernel_bits is not None:
        units = [Fraction(1, 2**k) for k in range(16)]
        unit = next(u for u in units if all(tap % u == 0 for column in taps for tap in column))
        largest = max(sum(abs(tap) for tap in column) for column in taps) / unit
        trace_bits = int(largest).bit_length() + any(tap < 0 for column in taps for tap in column)
    floats = weight_bits is None or kernel_bits is None
    real, shift = 4.6, 0.9 if floats else 0.1
    return {
        "synapse": price(weight_bits, 1),
        "trace": price(weight_bits, trace_bits),
        "spike": 0.9 if kernel_bits is None else 0.1,
        "tap": shift if kernel_bits == "pow2" else real if floats else 0.3,
        "compare": 0.9 if floats else 0.1,
    }


@settings(deadline=None, max_examples=80)
@given(
    sharing=st.sampled_from(["layer", "channel", "groups"]),
    weight_bits=st.sampled_from([1, 1.58, 4, None]),
    kernel_bits=st.sampled_from(["pow2", 3, None]),
    order=st.integers(2, 4),
    steps=st.integers(1, 6),
    inputs=st.integers(1, 4),
    per_group=st.integers(1, 3),
    batch=st.integers(1, 3),
    seed=st.integers(0, 2**20),
)
def test_a_stream_counts_as_a_simulation_does(
    sharing: str,
    weight_bits: float | None,
    kernel_bits: Any,
    order: int,
    steps: int,
    inputs: int,
    per_group: int,
    batch: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    outputs = 2 * per_group
    options: dict[str, Any] = {} if sharing == "layer" else {"num_channels": outputs}
    if sharing == "groups":
        options["groups"] = 2
    neuron = MFP(0.5, kernel="fir", order=order, kernel_bits=kernel_bits, v_threshold=0.3, **options)
    with torch.no_grad():
        # multiples of 1/4, which cancel now and then, exactly
        neuron.kernel.taps.copy_(torch.randint(-4, 5, neuron.kernel.taps.shape) / 4)
    layer = nn.Linear(inputs, outputs, bias=False)
    if weight_bits is None:
        with torch.no_grad():
            layer.weight.copy_(torch.randint(-2, 3, layer.weight.shape).float())
        weight, scale = layer.weight.detach(), torch.ones(outputs, 1)
    else:
        quantize_weights(layer, weight_bits)
        weight, scale = codes(layer).codes, codes(layer).scale.reshape(-1, 1)
    x = (torch.rand(steps, batch, inputs) < 0.4).float()
    net = nn.Sequential(layer, neuron)
    costs = report(net, x)

    values = neuron.kernel().taps.detach().reshape(order, -1)
    values = values.expand(-1, outputs) if values.shape[1] == 1 else values
    columns = [[Fraction(v) for v in column] for column in values.T.tolist()]
    number = {"layer": 1, "channel": outputs, "groups": 2}[sharing]
    taps = columns[:: outputs // number]
    sets = [o // (outputs // number) for o in range(outputs)]
    assert [taps[g] for g in sets] == columns

    prices = prices_of_a_layer(weight_bits, kernel_bits, taps)
    totals = []
    for traced in (False, True):
        samples = [
            simulate(x[:, n].int().tolist(), weight.int().tolist(), taps, sets, traced, prices)
            for n in range(batch)
        ]
        for n, (_, potentials) in enumerate(samples):
            u = torch.tensor([[float(v) for v in row] for row in potentials]) * scale.T.double()
            decided = (u - 0.3).abs() > 1e-5
            fired = net(x)[:, n].detach().bool()
            assert torch.equal(fired[decided], (u >= 0.3)[decided])
        counts = [count for count, _ in samples]
        totals.append(
            (sum(c.energy for c in counts), sum(c.synaptic for c in counts), sum(c.neuron for c in counts))
        )
    if sharing == "channel" or steps == 1:  # nothing is shared, or nothing remembered
        totals.pop()
    expected = min(totals, key=lambda total: (round(total[0], 6), total[1]))
    assert costs.streaming_energy_joules * batch == pytest.approx(expected[0] * PICO)
    assert costs.streaming_synaptic_operations * batch == pytest.approx(expected[1])
    assert costs.streaming_neuron_operations * batch == pytest.approx(expected[2])
