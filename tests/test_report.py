"""The report on networks that are counted by hand, or by brute force."""

import copy
import itertools
import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP, deploy, report
from mfp_neurons.baseline import QuantizedMembraneLIF
from mfp_neurons.quantize import quantize_weights
from mfp_neurons.reporting import Report
from mfp_neurons.spec import Carried, NeuronSpec, StepOperations


class Model(nn.Module):
    """Layers by name, and a function of the model and its input that runs them."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


class Stack(nn.Module):
    """Linear, batch norm and neuron, layer after layer, and a read-out of the last step."""

    def __init__(self, neurons: list[nn.Module], width: int = 6, inputs: int = 3) -> None:
        super().__init__()
        sizes = [inputs, *[width] * len(neurons)]
        self.synapses = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in neurons)
        self.neurons = nn.ModuleList(neurons)
        self.readout = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        for synapse, norm, neuron in zip(self.synapses, self.norms, self.neurons, strict=True):
            x = neuron(norm(synapse(x).flatten(0, 1)).unflatten(0, x.shape[:2]))
        return self.readout(x[-1])


def filled(layer: nn.Module, value: float) -> nn.Module:
    with torch.no_grad():
        for p in layer.parameters():
            p.fill_(value)
    return layer


# --- operations -----------------------------------------------------------------------------------


def test_a_linear_network_counted_by_hand():
    # every input spike drives u above the threshold, so the four hidden neurons fire where one arrives
    net = nn.Sequential(
        filled(nn.Linear(3, 4, bias=False), 2.0),
        MFP(decay=0.5, order=1),
        filled(nn.Linear(4, 2, bias=False), 0.1),
        MFP(decay=0.5, order=1),
    )
    spikes = torch.tensor(
        [[[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]]
    )  # T = N = 2
    costs = report(net, spikes)
    assert (costs.steps, costs.batch) == (2, 2)
    # 4 input spikes x 4 synapses, and 3 of 4 (step, sample) pairs make 4 spikes x 2 synapses; two samples
    assert [row.synaptic_operations for row in costs.synapses] == [4 * 4 / 2, 3 * 4 * 2 / 2]
    assert costs.synaptic_operations == 20
    assert costs.macs == 0
    # 12 spikes in 2 steps of 2 samples; the second layer reaches 0.4 and stays silent
    assert [row.spikes_per_step for row in costs.neurons] == [3.0, 0.0]
    assert [row.firing_rate for row in costs.neurons] == [0.75, 0.0]


def test_real_inputs_count_as_macs_zeros_included():
    net = nn.Sequential(nn.Linear(3, 4), MFP())
    costs = report(net, torch.tensor([0.5, 0.0, 1.0]).expand(5, 2, 3))  # T = 5, N = 2
    assert costs.macs == 5 * 3 * 4
    assert costs.synaptic_operations == 0
    assert costs.synapses[0].joules == pytest.approx(60 * 4.6e-12)


@st.composite
def layers_of_synapses(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A convolution, transposed or not, and 2 samples of spikes for it."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    dims, groups, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    options = {
        "kernel_size": tuple(draw(st.integers(1, 3)) for _ in range(dims)),
        "stride": stride,
        "padding": draw(st.integers(0, 2)),
        "dilation": draw(st.integers(1, 2)),
        "groups": groups,
    }
    if draw(st.booleans()):
        kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
        options["output_padding"] = draw(st.integers(0, stride - 1))
    else:
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        options["padding_mode"] = draw(st.sampled_from(["zeros", "circular", "replicate"]))
    sizes = (7, 8, 6)[:dims]
    return kind(2 * groups, 3 * groups, **options), (torch.rand(2, 2 * groups, *sizes) < 0.3).float()


@given(layers_of_synapses())
def test_operations_of_a_convolution_are_the_sum_of_its_outputs_with_ones_for_weights(case):
    layer, spikes = case
    ones = filled(copy.deepcopy(layer), 1.0)
    nn.init.zeros_(ones.bias)
    assert report(layer, spikes).synaptic_operations == ones(spikes).sum() / 2
    assert report(layer, spikes * 0.5 + 0.1).macs == ones(torch.ones_like(spikes)).sum() / 2


def test_a_synapse_of_weight_zero_is_none():
    layer = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -0.5, 0.01, 0.5], [0.01, 0.5, 0.01, -0.5]]))
    quantize_weights(layer, "ternary")  # small ones become 0
    costs = report(layer, torch.tensor([[1.0, 0.0, 1.0, 1.0]]))
    assert costs.synaptic_operations == 1 + 0 + 2


def test_a_spike_of_minus_one_is_a_spike_and_one_of_two_is_a_real_value():
    layer = nn.Linear(3, 4)
    assert report(layer, torch.tensor([[1.0, -1.0, 0.0]])).synaptic_operations == 8
    assert report(layer, torch.tensor([[1.0, 2.0, 0.0]])).macs == 12


def test_a_stream_sends_every_remembered_spike_again():
    net = nn.Sequential(nn.Linear(2, 3), MFP(order=3))
    spikes = torch.zeros(5, 1, 2)
    spikes[0, 0, 0] = 1  # seen at steps 0, 1, 2
    spikes[4, 0, 1] = 1  # seen at step 4 alone: the run ends
    costs = report(net, spikes)
    assert costs.synaptic_operations == 2 * 3
    assert costs.streaming_synaptic_operations == (3 + 1) * 3


# --- state ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orders", "bits"),
    [((1, 1, 4), 1), ((1, 1, 7), 2), ((1, 1, 28), 9), ((28, 28, 28), 27), ((1, 28, 28), 18)],
)
def test_mean_bits_a_neuron_of_memory_free_layers(orders, bits):
    net = Stack([MFP(decay=0.5, order=order) for order in orders])
    assert report(net, torch.randn(28, 2, 3)).state_bits_per_neuron == bits


@pytest.mark.parametrize(
    ("bits", "kept"), [((None, 3), [6 * 32, 6 * 3]), ((0, 2), [6 * 2]), ((0, 0, None), [6 * 32])]
)
def test_mean_bits_a_neuron_of_layers_with_a_potential(bits, kept):
    """0 bits: a neuron that forgets all at once, or a memory-free one of order 1."""
    lif = {b: QuantizedMembraneLIF(bits=b) for b in (None, 2, 3)}
    none = [QuantizedMembraneLIF(decay=0.0, bits=2), MFP(order=1)]
    costs = report(Stack([none.pop() if b == 0 else lif[b] for b in bits]), torch.randn(28, 2, 3))
    assert [row.bits for row in costs.state] == kept
    assert costs.state_bits_per_neuron == pytest.approx(sum(kept) / (6 * len(bits)))


def test_a_memory_free_neuron_keeps_the_past_spikes_of_the_neurons_before_it():
    net = Stack([MFP(order=1), MFP(order=4)], width=6)
    with torch.no_grad():
        net.norms[0].bias.fill_(1.0)  # some of them fire
    costs = report(net, torch.randn(8, 2, 3))
    (row,) = costs.state
    assert (row.of, row.values, row.bits_per_value, row.steps) == ("neurons.0", 6, 1, 3)
    assert costs.state_bits == 18


@pytest.mark.parametrize(
    ("order", "width", "kept"),
    [
        (4, 6, ("input", "real values", 3, 32, 3)),
        (4, 2, ("neurons.0", "inputs", 2, 32, 3)),  # fewer neurons than inputs: their own inputs are less
        (None, 6, ("neurons.0", "potential", 6, 32, 1)),  # all that an infinite exponential needs
    ],
)
def test_real_values_are_kept_as_they_are_or_as_the_potential_if_that_is_less(order, width, kept):
    (row,) = report(Stack([MFP(order=order)], width=width), torch.randn(8, 2, 3)).state
    assert (row.of, row.what, row.values, row.bits_per_value, row.steps) == kept


def test_an_infinite_kernel_keeps_the_spikes_of_the_whole_example():
    assert report(Stack([MFP()]), (torch.randn(8, 2, 3) > 0).float()).state_bits == 3 * 7


@settings(deadline=None, max_examples=30)
@given(
    layers=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), min_size=1, max_size=3),
    steps=st.integers(1, 6),
)
def test_own_spikes_and_those_for_the_next_layer_are_the_same_bits(layers, steps):
    layers = [(1, layers[0][1]), *layers[1:]]  # the first layer reads real numbers, so without a history
    neurons = [MFP(order=k, reset="feedback" if r else None, reset_order=r or None) for k, r in layers]
    costs = report(Stack(neurons, width=6), torch.randn(steps, 2, 3))
    behind = [k - 1 for k, _ in layers[1:]] + [0]
    kept = [min(max(k, r), steps - 1) for k, (_, r) in zip(behind, layers, strict=True)]
    assert costs.state_bits == 6 * sum(kept)
    assert costs.state_bits_per_neuron == pytest.approx(sum(kept) / len(layers))
    for row, (_, r), k in zip(costs.neurons, layers, behind, strict=True):
        assert row.feedback_bits == max(min(r, steps - 1) - min(k, steps - 1), 0)


def test_spikes_that_two_layers_read_are_kept_once():
    def run(net: Any, x: Tensor) -> Tensor:
        s = net.a(net.first(x) + 2)
        return net.c(net.b(net.second(s)) + net.shortcut(s))

    synapses = {"first": nn.Linear(3, 6), "second": nn.Linear(6, 4), "shortcut": nn.Linear(6, 4)}
    net = Model(run, **synapses, a=MFP(order=1), b=MFP(order=5), c=MFP(order=3))
    costs = report(net, torch.randn(8, 2, 3))
    kept = {row.of: (row.values, row.steps, set(row.needed_by)) for row in costs.state}
    assert kept == {"a": (6, 4, {"b", "c"}), "b": (4, 2, {"c"})}
    assert costs.state_bits == 6 * 4 + 4 * 2


@pytest.mark.parametrize(("pool", "kept"), [(nn.AvgPool2d(2), 16), (nn.MaxPool2d(2), 4)])
def test_behind_an_average_pooling_the_spikes_before_it_are_kept(pool, kept):
    def run(net: Any, x: Tensor) -> Tensor:
        s = net.pool(net.a(x).flatten(0, 1)).flatten(1).unflatten(0, x.shape[:2])
        return net.b(net.synapse(s))

    net = Model(run, a=MFP(order=1), pool=pool, synapse=nn.Linear(4, 2), b=MFP(order=3))
    assert report(net, torch.rand(5, 2, 1, 4, 4) * 2).state_bits == kept * 2


def test_an_input_that_does_not_change_is_kept_once():
    def run(net: Any, x: Tensor) -> Tensor:
        return net.neuron(net.synapse(x).expand(8, -1, -1))

    costs = report(Model(run, synapse=nn.Linear(4, 6), neuron=MFP(order=3)), torch.randn(2, 4))
    assert (costs.steps, costs.batch) == (8, 2)
    assert costs.state_bits == 4 * 32
    assert costs.macs == 4 * 6


# --- weights and activations ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel_bits", "channels", "expected"),
    [
        ("pow2", 6, math.ceil(7 * 6 * 4 / 8) + 6 + math.ceil(2 * 6 * 4 / 8) + 6),
        ("pow2", None, math.ceil(7 * 4 / 8) + 1 + math.ceil(2 * 4 / 8) + 1),
        (3, 6, math.ceil(7 * 6 * 3 / 8) + 6 + math.ceil(2 * 6 * 3 / 8) + 6),
        (None, 6, 4 * 9 * 6),
    ],
)
def test_taps_on_a_grid_take_its_bits_and_a_byte_a_column(kernel_bits, channels, expected):
    neuron = MFP(
        0.5,
        kernel="fir",
        order=7,
        num_channels=channels,
        kernel_bits=kernel_bits,
        reset="feedback",
        reset_order=2,
    )
    costs = report(nn.Sequential(neuron), torch.rand(8, 2, 6))
    assert costs.weight_bytes == expected
    assert costs.weight_bytes_stored == 4 * 9 * (channels or 1)


def test_seventeen_numbers_take_five_bits():
    neuron = MFP(0.5, kernel="fir", order=4, num_channels=2, kernel_bits="pow2")
    with torch.no_grad():
        neuron.kernel.taps.copy_(torch.tensor([[1.0, 0.5], [-1.0, 0.25], [0.5, 0.0], [0.25, 0.0]]))
    assert report(nn.Sequential(neuron), torch.rand(8, 3, 2)).weight_bytes == 8 * 5 / 8 + 2


@pytest.mark.parametrize(
    ("bits", "packed"),
    [(1, math.ceil(33 / 8)), (1.58, math.ceil(66 / 8)), (3, math.ceil(99 / 8)), (8, 33)],
)
def test_packed_weights_are_codes_and_scales(bits, packed):
    layer = quantize_weights(nn.Linear(11, 3), bits)
    costs = report(layer, torch.zeros(1, 11))
    assert costs.synapses[0].packed_bytes == packed + 3 * 2
    assert costs.weight_bytes == packed + 3 * 2 + 3 * 2  # the bias
    assert costs.weight_bytes_stored == sum(p.numel() * 4 for p in layer.parameters())


@pytest.mark.parametrize("bits", [1, 1.58, 2, 5, 8])
def test_the_integer_network_has_as_many_bytes_of_codes_and_bits_of_state(bits):
    """The report counts what a model will take; the integer network counts the arrays that it has."""
    spikes = (torch.rand(8, 2, 11) < 0.5).float()
    neurons = [MFP(decay=0.5, order=order, v_threshold=0.1) for order in (3, 5)]
    layers = [quantize_weights(nn.Linear(a, b), bits) for a, b in ((11, 8), (8, 16), (16, 3))]
    net = nn.Sequential(layers[0], neurons[0], layers[1], neurons[1], layers[2])
    costs, memory = report(net, spikes), deploy.lower(net, spikes).memory()
    scales = 2 * (8 + 16 + 3)
    assert sum(row.packed_bytes for row in costs.synapses) == memory.weights + scales
    assert costs.state_bits == 11 * 2 + 8 * 4
    assert memory.state_stream == math.ceil(costs.state_bits / 8)


def test_weights_of_a_whole_model_counted_by_hand():
    net = quantize_weights(Stack([MFP(), MFP(learnable=True)]), 1, first=8, last=None)
    costs = report(net, torch.randn(4, 2, 3))
    readout = (6 * 2 + 2) * 4
    # gain and offset of the norms, 16 bits each; a decay
    assert costs.weight_bytes == 3 * 6 + math.ceil(36 / 8) + 2 * 6 * (2 + 2) + 1 + readout
    norms = 2 * (4 * 6 * 4 + 8)  # weight, bias, mean, variance, and a counter of 8 bytes
    learned_step = 6 * 4  # of the layer of 8 bits
    assert costs.weight_bytes_stored == 3 * 6 * 4 + learned_step + 36 * 4 + norms + 4 + readout


class Normed(nn.Module):
    """A convolution and a batch norm, a second convolution whose norm also gets what went in, and neurons."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x.flatten(0, 1)))
        return self.neuron(self.other(self.second(y) + y).unflatten(0, x.shape[:2]))


def test_a_batch_norm_takes_the_bias_and_the_scales_in_front_of_it():
    net = Normed(QuantizedMembraneLIF(bits=2, learnable=True, num_channels=3))
    x = torch.rand(4, 2, 3, 2, 2).round()
    # float weights with a bias each, the second's its own; two numbers of 16 bits; decays and scales
    neuron = 3 * (1 + 2)
    assert report(net, x).weight_bytes == 2 * 9 * 4 + 3 * 4 + (3 * 4 + 3 * 4) + neuron
    quantize_weights(net, 4, first=4, last=4)
    # the second has scales and a bias of 16 bits
    assert report(net, x).weight_bytes == 2 * math.ceil(9 / 2) + 3 * 4 + 3 * (2 + 2 + 4) + neuron
    (first, second) = report(net, x).synapses
    assert (first.packed_bytes, second.packed_bytes) == (5, 5 + 3 * 2)


class Adapting(nn.Module):
    """A neuron of one's own, whose names say nothing, or something else than elsewhere."""

    def __init__(self, bits: int | None) -> None:
        super().__init__()
        self.bits = bits
        self.leak, self.level, self.unit = (nn.Parameter(torch.full((6,), 0.5)) for _ in range(3))
        self.beta = nn.Parameter(torch.ones(6))

    def forward(self, x_seq: Tensor) -> Tensor:
        return (x_seq > self.level).to(x_seq)

    def neuron_spec(self) -> NeuronSpec:
        return NeuronSpec(
            kernel=None,
            carried=Carried("potential", bits=2 * (self.bits or 32)),
            threshold=self.level,
            surrogate=None,
            decays=(self.leak,),
            numbers=(self.unit,),
            operations=StepOperations(additions=3, multiplications=2, bits=self.bits),
        )


@pytest.mark.parametrize(("bits", "picojoules"), [(8, 3 * 0.1 + 2 * 0.2), (None, 3 * 0.9 + 2 * 3.7)])
def test_a_neuron_of_ones_own_says_what_it_keeps_and_computes(bits, picojoules):
    synapse = quantize_weights(nn.Linear(3, 6, bias=False), 1)
    costs = report(nn.Sequential(synapse, Adapting(bits)), (torch.rand(5, 2, 3) < 0.5).float())
    assert costs.weight_bytes == math.ceil(18 / 8) + 6 * 2 + 6 * (1 + 2 + 2 + 4)
    assert costs.state_bits == 6 * 2 * (bits or 32)
    (neuron,) = costs.neurons
    assert neuron.neuron_operations == neuron.streaming_neuron_operations == 5 * 6 * 5
    assert neuron.joules == neuron.streaming_joules == pytest.approx(1e-12 * 5 * 6 * picojoules)


def test_learned_decays_and_thresholds_take_8_and_16_bits():
    for expected, neuron in (
        (4 * (1 + 2), MFP(learnable=True, learn_threshold=True, num_channels=4)),
        (4 * (1 + 2), QuantizedMembraneLIF(bits=2, learnable=True, num_channels=4)),
        (0, MFP()),
    ):
        assert report(nn.Sequential(neuron), torch.rand(5, 2, 4)).weight_bytes == expected


def test_the_frameworks_learned_decays_and_thresholds_take_8_and_16_bits(sj):
    from mfp_neurons.snntorch import MFPLeaky
    from mfp_neurons.spikingjelly import MFPNode

    snn = pytest.importorskip("snntorch")
    x_seq = torch.rand(5, 2, 4)
    for node in (sj.neuron.ParametricLIFNode(), MFPNode(learnable=True)):
        assert report(node, x_seq, run=step_by_step).weight_bytes == 1
    beta = torch.full((4,), 0.5)
    numbers = 2 + 2 + 8  # threshold, factor of spikes; the number of its reset as stored
    for leaky, decays in (
        (snn.Leaky(beta, learn_beta=True, init_hidden=True), 4),
        (MFPLeaky(beta, learn_beta=True, init_hidden=True), 4),
        (snn.Synaptic(0.5, beta, learn_alpha=True, init_hidden=True), 4 + 1),
    ):
        assert report(leaky, x_seq, run=step_by_step).weight_bytes == decays + numbers


def test_a_weight_used_twice_is_stored_once():
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    assert report(nn.Sequential(first, second), torch.zeros(1, 4)).weight_bytes == 64


def test_peak_activations_counted_by_hand():
    net = nn.Sequential(
        nn.Linear(10, 1000, bias=False), nn.ReLU(), nn.Linear(1000, 20, bias=False), nn.Flatten()
    )
    costs = report(net, torch.zeros(8, 10))
    assert costs.peak_activation_bytes == 2 * 8 * 1000 * 4  # in and out of the ReLU
    net[1] = nn.ReLU(inplace=True)
    assert report(net, torch.zeros(8, 10)).peak_activation_bytes == 8 * 1000 * 4 + 8 * 20 * 4


# --- what is not counted, and what is left alone --------------------------------------------------


def test_what_is_not_counted_is_listed_by_name():
    net = Model(lambda net, x: net.lstm(x)[0] @ net.lstm(x)[0].mT, lstm=nn.LSTM(3, 4))
    costs = report(nn.Sequential(net), torch.randn(2, 3, 3))
    assert set(costs.not_counted) == {"0", "0.lstm"}
    assert "0.lstm" in str(costs)
    assert report(nn.Linear(3, 4), torch.zeros(1, 3)).not_counted == {}


def test_a_module_that_keeps_a_tensor_is_listed():
    def run(net: Any, x: Tensor) -> Tensor:
        net.before = x
        return x

    assert "kept" in report(nn.Sequential(Model(run)), torch.zeros(1, 3)).not_counted["0"]


class Restless(nn.Module):
    """Changes itself in every way that a module can."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.queue: list[Tensor] = [torch.zeros(2)]
        self.calls = {"n": 0}
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout()
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.queue[0] += 1
        self.queue.append(x)
        self.calls["n"] += 1
        self.new = x
        self.train()
        if self.fail:
            raise RuntimeError("on purpose")
        return self.drop(self.norm(x)) + torch.rand(1)


@pytest.mark.parametrize("fail", [False, True])
def test_the_model_is_left_exactly_as_it_was(fail):
    model = Restless()
    model.fail = fail
    model.norm.eval()
    seen, queue, calls = model.seen, model.queue, model.calls
    names = set(model.__dict__)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    versions = {name: value._version for name, value in model.state_dict(keep_vars=True).items()}
    generator = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="on purpose") if fail else nullcontext():
        report(model, torch.randn(4, 3, generator=torch.Generator()))
    assert model.training and not model.norm.training and model.drop.training
    assert model.seen is seen and model.queue is queue and model.calls is calls
    assert len(queue) == 1 and not queue[0].any() and calls == {"n": 0}
    assert set(model.__dict__) == names
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert versions == {name: value._version for name, value in model.state_dict(keep_vars=True).items()}
    assert torch.equal(torch.get_rng_state(), generator)
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    assert not any(getattr(module, name) for module in model.modules() for name in hooks)


def test_a_compiled_model_is_counted_like_the_plain_one():
    net = Stack([MFP(order=2), MFP(order=2)])
    x = torch.randn(4, 2, 3)
    plain, compiled = report(net, x), report(torch.compile(net, backend="eager"), x)
    assert compiled.synaptic_operations == plain.synaptic_operations
    assert compiled.state_bits == plain.state_bits


def test_brevitas_layers_count_with_their_codes():
    brevitas = pytest.importorskip("brevitas.nn")
    layer = brevitas.QuantLinear(8, 3, bias=False, weight_bit_width=4)
    costs = report(nn.Sequential(layer), torch.ones(1, 8))
    assert costs.weight_bytes == 8 * 3 // 2 + 3 * 2
    assert costs.synapses[0].bits == 4


TABLE = """\
synapses  kind             weights  bits  packed  stored   input  syn. ops  MACs   energy  streaming
--------  ---------------  -------  ----  ------  ------  ------  --------  ----  -------  ---------
0         QuantizedLinear        6     1     7 B    24 B  spikes         6     0   0.6 pJ     0.9 pJ
2         Linear                 6    32    24 B    24 B  spikes        12     0  10.8 pJ    10.8 pJ

neurons  kind  number  state bits each  spikes a step  firing rate  energy  streaming
-------  ----  ------  ---------------  -------------  -----------  ------  ---------
1        MFP        3                1              3       1.0000  1.5 pJ     0.9 pJ

kept between steps  what    values  bits  steps  total bits  needed by
------------------  ------  ------  ----  -----  ----------  ---------
input               spikes       2     1      1           2  1

steps, batch                      2, 1
"""


def test_the_dict_is_json_and_the_table_has_a_line_for_every_layer():
    first = quantize_weights(filled(nn.Linear(2, 3, bias=False), 2.0), 1)
    costs = report(
        nn.Sequential(first, MFP(order=2), nn.Linear(3, 2, bias=False)), torch.eye(2).reshape(2, 1, 2)
    )
    assert isinstance(costs, Report)
    assert str(costs).startswith(TABLE)
    # 6 additions, 12 of floats, 9 taps and 6 comparisons; as a stream 9 traces, of 3 spikes, and no taps
    assert "energy, estimate (45 nm)          12.9 pJ a sample" in str(costs)
    assert "  when streaming                  12.6 pJ a sample" in str(costs)
    plain = json.loads(json.dumps(costs.as_dict()))
    assert plain["state_bits"] == costs.state_bits
    assert [row["name"] for row in plain["synapses"]] == ["0", "2"]


def test_layers_that_hardly_fire_are_named_and_read_outs_are_not():
    """100 inputs of 0.5, 0.5, .. 1.0 at each neuron: of 100 elements, so many fire as are 1.0."""
    net = nn.Sequential(*[MFP(decay=0.0, v_threshold=threshold) for threshold in (0.9, math.inf)])
    for firing, expected in ((1, ["0"]), (2, []), (50, [])):
        x = torch.where(torch.arange(100) < firing, 1.0, 0.5).reshape(10, 1, 10)
        costs = report(net, x)
        assert costs.neurons[0].firing_rate == pytest.approx(firing / 100)
        assert costs.hardly_fire == costs.as_dict()["hardly_fire"] == expected
        assert ("hardly fire (less than 2% of their steps): 0" in str(costs)) == bool(expected)


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="model"):
        report(torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match="lazy"):
        report(nn.Sequential(nn.LazyLinear(3)), torch.zeros(1, 2))


# --- frameworks -----------------------------------------------------------------------------------


@pytest.fixture
def sj():
    activation_based = pytest.importorskip("spikingjelly.activation_based")
    from spikingjelly.activation_based import functional, layer, neuron  # noqa: F401

    return activation_based


def step_by_step(net: nn.Module, x_seq: Tensor) -> Tensor:
    return torch.stack([net(x) for x in x_seq])


def jelly(sj, neurons: list[nn.Module]) -> nn.Module:
    """3 x 6 x 6 input, a convolution, a pooling, a linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        filled(sj.layer.Conv2d(1, 2, 3, padding=1, bias=False), 2.0),
        neurons[0],
        sj.layer.MaxPool2d(2),
        sj.layer.Flatten(),
        filled(sj.layer.Linear(8, 3, bias=False), 2.0),
        neurons[1],
    )


def test_a_spikingjelly_network_counted_by_hand_in_both_step_modes(sj):
    net = jelly(sj, [sj.neuron.LIFNode(v_reset=None), sj.neuron.IFNode(v_reset=None)])
    x_seq = torch.zeros(3, 1, 1, 4, 4)
    x_seq[0, 0, 0, 0, 0] = 1  # a corner: 4 positions x 2 channels
    single = report(net, x_seq, run=step_by_step)
    sj.functional.set_step_mode(net, "m")
    multi = report(net, x_seq)
    for costs in (single, multi):
        assert (costs.steps, costs.batch) == (3, 1)
        # h = 2 / tau = 1 at 4 positions: they fire once; pooled, 1 of 4 positions is left, in 2 channels
        assert [row.synaptic_operations for row in costs.synapses] == [4 * 2, 2 * 3]
        assert [row.spikes_per_step for row in costs.neurons] == pytest.approx([8 / 3, 3 * 3 / 3])
        assert costs.state_bits == (2 * 16 + 3) * 32
        assert costs.torch_state_bytes == (2 * 16 + 3) * 4
    assert not any(torch.is_tensor(module.v) for module in net.modules() if hasattr(module, "_memories"))


def test_memory_free_neurons_count_alike_in_both_step_modes_and_in_plain_torch(sj):
    from mfp_neurons import MFPNode

    x_seq = (torch.rand(5, 2, 1, 4, 4) < 0.3).float()
    single = jelly(sj, [MFPNode(2.0, False, order=order, reset=None) for order in (1, 3)])
    multi, plain = copy.deepcopy(single), jelly(sj, [MFP(decay=0.5, order=order) for order in (1, 3)])
    for net in (multi, plain):
        sj.functional.set_step_mode(net, "m")
    first, *others = report(single, x_seq, run=step_by_step), report(multi, x_seq), report(plain, x_seq)
    assert first.spikes_per_step > 0
    assert first.state_bits == 8 * 2  # pooled spikes of two steps
    assert first.state_bits_per_neuron == 3 * 2 / (2 * 16 + 3)
    for costs in (first, *others):
        assert not costs.not_counted
        for name in ("state_bits", "state_bits_per_neuron", "synaptic_operations", "spikes_per_step"):
            assert getattr(costs, name) == getattr(first, name)


def test_spikingjelly_states_are_left_as_they_were(sj):
    net = nn.Sequential(sj.layer.Linear(3, 4), sj.neuron.LIFNode(store_v_seq=True))
    net(torch.randn(2, 3))
    node = net[1]
    v, v_seq, value = node.v, node.v_seq, node.v.clone()
    report(net, torch.randn(5, 7, 3), run=step_by_step)  # another batch size
    assert node.v is v and torch.equal(v, value) and node.v_seq is v_seq
    assert v.grad_fn is not None


@pytest.mark.parametrize(("kind", "bits"), [("SlidingPSN", 2 * 32), ("PSN", 5 * 32)])
def test_parallel_spiking_neurons_keep_real_inputs(sj, kind, bits):
    if not hasattr(sj.neuron, kind):
        pytest.skip("not in this SpikingJelly")
    node = sj.neuron.PSN(5) if kind == "PSN" else sj.neuron.SlidingPSN(k=3, step_mode="m")
    costs = report(nn.Sequential(nn.Linear(3, 4), node), torch.randn(5, 2, 3))
    assert costs.state_bits == 4 * bits
    assert costs.neurons[0].state_bits_per_neuron == bits


def test_the_spikes_that_come_back_in_a_spikingjelly_container_are_counted(sj):
    class Add(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    loop = sj.layer.ElementWiseRecurrentContainer(sj.neuron.IFNode(), Add())
    costs = report(nn.Sequential(loop), torch.ones(3, 2, 4), run=step_by_step)
    assert not costs.not_counted
    assert ("spikes that come back", 4, 1) in {
        (row.what, row.values, row.bits_per_value) for row in costs.state
    }
    assert loop.y is None


class Steps(nn.Module):
    """A snnTorch model that loops over the steps itself."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.a, self.b = filled(nn.Linear(3, 4, bias=False), 1.5), filled(nn.Linear(4, 2, bias=False), 0.3)
        self.first, self.second = first, second

    def forward(self, x_seq: Tensor) -> Tensor:
        mem_a, mem_b, out = self.first.reset_mem(), self.second.reset_mem(), []
        for x in x_seq:
            spikes, mem_a = self.first(self.a(x), mem_a)
            spikes, mem_b = self.second(self.b(spikes), mem_b)
            out.append(spikes)
        return torch.stack(out)


def test_a_snntorch_loop_counted_by_hand():
    snn = pytest.importorskip("snntorch")
    net = Steps(snn.Leaky(0.5), snn.Leaky(0.5))
    net.first.mem = kept = torch.ones(2, 4)
    x_seq = torch.zeros(3, 2, 3)
    x_seq[0, 0, 0] = 1  # one sample's four neurons fire once, then 1.2 > 1 fires the two behind them
    costs = report(net, x_seq)
    assert (costs.steps, costs.batch) == (3, 2)
    assert [row.synaptic_operations for row in costs.synapses] == [1 * 4 / 2, 4 * 2 / 2]
    assert [row.spikes_per_step for row in costs.neurons] == pytest.approx([4 / 6, 2 / 6])
    assert costs.state_bits == (4 + 2) * 32
    assert costs.state_bits_per_neuron == 32
    assert net.first.mem is kept and net.second.mem.numel() == 0


def test_memory_free_snntorch_neurons_keep_past_spikes():
    pytest.importorskip("snntorch")
    from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel

    x_seq = (torch.rand(6, 2, 3) < 0.3).float()
    steps = Steps(
        MFPLeaky(0.5, order=2, reset_mechanism="none"), MFPLeaky(0.5, order=4, reset_mechanism="none")
    )
    whole = nn.Sequential(
        filled(nn.Linear(3, 4, bias=False), 1.5),
        MFPLeakyParallel(0.5, order=2, init_hidden=True, reset_mechanism="none"),
        filled(nn.Linear(4, 2, bias=False), 0.3),
        MFPLeakyParallel(0.5, order=4, init_hidden=True, reset_mechanism="none"),
    )
    for costs in (report(steps, x_seq), report(whole, x_seq)):
        assert (costs.steps, costs.batch) == (6, 2)
        assert costs.state_bits == 3 * 1 + 4 * 3
        assert costs.state_bits_per_neuron == (4 * 1 + 2 * 3) / 6
    assert report(steps, x_seq).spikes_per_step == report(whole, x_seq).spikes_per_step > 0


def test_what_a_snntorch_neuron_keeps_beside_its_potential_is_counted():
    snn = pytest.importorskip("snntorch")

    def kept(neuron: nn.Module) -> dict[str, int]:
        costs = report(nn.Sequential(nn.Linear(3, 4), neuron), torch.rand(5, 2, 3), run=step_by_step)
        return {row.what: row.bits for row in costs.state}

    assert kept(snn.Synaptic(0.9, 0.8, init_hidden=True)) == {"mem": 4 * 32, "syn": 4 * 32}
    recurrent = snn.RLeaky(0.9, linear_features=4, init_hidden=True)
    assert kept(recurrent) == {"mem": 4 * 32, "spk": 4}  # the spikes that come back are a bit each


# --- what comes back to a neuron ----------------------------------------------------------------------------


@pytest.mark.parametrize(("own", "kept", "mean"), [(6, 6, 2), (8, 8, (2 + 6) / 3), (2, 6, 2), (99, 9, 3)])
def test_own_spikes_are_kept_once_for_the_next_layer_and_the_neuron_itself(own, kept, mean):
    second = MFP(order=1, reset="feedback", reset_order=own)
    net = Stack([MFP(order=1), second, MFP(order=7)])
    costs = report(net, (torch.rand(10, 2, 3) < 0.4).float())
    assert [(r.of, r.values, r.bits_per_value, r.steps, r.needed_by) for r in costs.state] == [
        ("neurons.1", 6, 1, kept, ("neurons.2", "neurons.1"))
    ]
    assert costs.state_bits_per_neuron == mean  # 6 of layer 3, and of layer 2 what layer 3 does not keep


def test_own_spikes_that_no_other_layer_keeps_are_state():
    net = nn.Sequential(nn.Linear(3, 4), MFP(order=3, reset="zero"), nn.Linear(4, 2))
    costs = report(net, (torch.rand(9, 2, 3) < 0.4).float())
    assert {row.of: row.bits for row in costs.state} == {"input": 3 * 2, "1": 4 * 2}
    assert costs.state_bits_per_neuron == 2 + 2


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_a_reset_without_an_order_keeps_a_potential_and_repeats_no_operation(reset):
    net = Stack([MFP(order=1), MFP(reset=reset, v_threshold=0.1)])
    costs = report(net, (torch.rand(10, 2, 3) < 0.4).float())
    assert [(row.of, row.what, row.bits) for row in costs.state] == [("neurons.1", "potential", 6 * 32)]
    assert costs.state_bits_per_neuron == 16
    assert costs.streaming_synaptic_operations == costs.synaptic_operations > 0


@pytest.mark.parametrize(
    ("options", "lags"),
    [
        ({"reset": "zero"}, []),
        ({"reset": "subtract"}, [1]),
        ({"reset": "subtract", "order": 4}, [1, 2, 3]),
        ({"reset": "subtract", "order": 9, "reset_order": 2}, [1, 2]),
        ({"reset": "feedback", "order": 2, "reset_order": 3}, [1, 3]),
        ({"order": 4}, []),
    ],
)
def test_additions_of_own_spikes_are_one_for_each_tap_that_they_meet(options, lags):
    neuron = MFP(v_threshold=0.2, **options)
    if options.get("reset") == "feedback":
        with torch.no_grad():
            neuron.feedback.taps.copy_(torch.tensor([0.1, 0.0, -0.1]))
    net = nn.Sequential(filled(nn.Linear(3, 4), 0.15), neuron)
    x = (torch.rand(7, 2, 3) < 0.6).float()
    fired = net(x).detach()
    expected = sum(float(fired[t].sum()) for t in range(7) for lag in lags if t + lag < 7) / 2
    costs = report(net, x)
    assert costs.feedback_additions == costs.as_dict()["feedback_additions"] == expected
    assert bool(lags) == ("of own spikes" in str(costs))
    assert fired.sum() > 0


def test_a_framework_s_own_neuron_keeps_the_potential_that_it_stores():
    snn = pytest.importorskip("snntorch")
    for how in ("none", "zero", "subtract"):
        net = nn.Sequential(nn.Linear(3, 4), snn.Leaky(0.9, reset_mechanism=how, init_hidden=True))
        costs = report(net, (torch.rand(5, 2, 3) < 0.5).float(), run=step_by_step)
        assert [(row.what, row.bits) for row in costs.state] == [("mem", 4 * 32)]
        assert costs.streaming_synaptic_operations == costs.synaptic_operations
