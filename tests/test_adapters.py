"""One description of every neuron, ours and the frameworks' own; one list of options for their kernels."""

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from mfp_neurons import MFP, QuantizedMembraneLIF
from mfp_neurons.adapters import describe_neuron, is_memory_free, is_neuron, kept_tensors, put_state
from mfp_neurons.history import FIR, Exponential, Matrix
from mfp_neurons.neuron import HistoryKernel
from mfp_neurons.spec import Carried, NeuronSpec, StateNames

snn = pytest.importorskip("snntorch", reason="the 'snntorch' extra is not installed")
pytest.importorskip("spikingjelly", reason="the 'spikingjelly' extra is not installed")

from spikingjelly.activation_based import layer, neuron  # noqa: E402

from mfp_neurons import MFPNode  # noqa: E402
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel  # noqa: E402

POTENTIAL, NOTHING = Carried("potential"), Carried("nothing", 0)
V = StateNames(("v",), potential="v")
V_AND_HISTORY = StateNames(("v", "history"), potential="v", history="history")
MEM = StateNames(("mem",), potential="mem")
MEM_AND_HISTORY = StateNames(("mem", "history"), potential="mem", history="history")
MATRIX: dict[str, Any] = {"kernel": "matrix", "time_steps": 4}

# neuron, value of its kernel, what it carries, whether it takes whole sequences and goes on in the next call,
# where it keeps its state, whether it fires above the threshold only
OURS = [
    (lambda: MFP(), Exponential, POTENTIAL, True, False, StateNames(), False),
    (lambda: MFP(order=3, strict=True), Exponential, Carried("inputs", 2), True, False, StateNames(), True),
    (lambda: MFP(**MATRIX), Matrix, Carried("all inputs", 3), True, False, StateNames(), False),
    (lambda: MFPNode(reset=None), Exponential, POTENTIAL, False, True, V, False),
    (lambda: MFPNode(order=1, step_mode="m", reset=None), Exponential, NOTHING, True, False, V, False),
    (
        lambda: MFPNode(kernel="fir", order=3, stride=2, reset=None),
        FIR,
        Carried("inputs", 4),
        False,
        True,
        V_AND_HISTORY,
        False,
    ),
    (
        lambda: MFPNode(**MATRIX, order=1, reset=None),
        Matrix,
        Carried("all inputs", 0),
        False,
        True,
        V_AND_HISTORY,
        False,
    ),
    (lambda: MFPLeaky(0.5, reset_mechanism="none"), Exponential, POTENTIAL, False, True, MEM, True),
    (
        lambda: MFPLeaky(0.5, order=4, reset_mechanism="none"),
        Exponential,
        Carried("inputs", 3),
        False,
        True,
        MEM_AND_HISTORY,
        True,
    ),
    (
        lambda: MFPLeakyParallel(0.5, order=4, reset_mechanism="none"),
        Exponential,
        Carried("inputs", 3),
        True,
        False,
        MEM,
        True,
    ),
]


@pytest.mark.parametrize(
    ("make", "kernel", "carried", "takes_sequences", "continues", "state", "strict"), OURS
)
def test_our_neurons_describe_themselves(make, kernel, carried, takes_sequences, continues, state, strict):
    module = make()
    spec = describe_neuron(module)
    assert is_memory_free(module) and isinstance(spec.kernel(), kernel)
    assert (spec.carried, spec.takes_sequences, spec.continues) == (carried, takes_sequences, continues)
    assert spec.state == state and spec.fires_above_only() is strict and not spec.never_fires


THEIRS = [
    (lambda: QuantizedMembraneLIF(bits=2), Carried("potential", bits=2), True, ()),
    (lambda: QuantizedMembraneLIF(0.0), Carried("nothing", 0, bits=0), True, ()),
    (lambda: type("Mine", (neuron.ParametricLIFNode,), {})(), POTENTIAL, False, ("v",)),
    (lambda: type("Mine", (snn.Leaky,), {})(0.5), POTENTIAL, False, ("mem",)),
    (lambda: snn.Synaptic(0.5, 0.5), POTENTIAL, False, ("mem", "syn")),
    (lambda: snn.RLeaky(0.5, linear_features=3, reset_mechanism="zero"), POTENTIAL, False, ("mem", "spk")),
    (lambda: snn.StateLeaky(0.5, channels=2), POTENTIAL, True, ()),
    # what no sum over inputs and own spikes says
    (lambda: snn.Leaky(0.5, reset_delay=False), POTENTIAL, False, ("mem",)),
    (lambda: snn.Leaky(0.5, threshold=-0.1), POTENTIAL, False, ("mem",)),
    (lambda: snn.Lapicque(beta=0.5, reset_mechanism="zero"), POTENTIAL, False, ("mem",)),
    (lambda: snn.Lapicque(R=0.5, C=0.5), POTENTIAL, False, ("mem",)),
]
if hasattr(neuron, "PSN"):
    THEIRS += [
        (lambda: neuron.PSN(T=4), Carried("all inputs"), True, ()),
        (lambda: neuron.MaskedPSN(k=3, T=4), Carried("inputs", 2), False, ("time_step", "queue")),
        (lambda: neuron.SlidingPSN(k=3, step_mode="m"), Carried("inputs", 2), True, ("queue",)),
    ]


@pytest.mark.parametrize(("make", "carried", "takes_sequences", "names"), THEIRS)
def test_neurons_that_are_no_sum_are_described_without_a_kernel(make, carried, takes_sequences, names):
    module = make()
    spec = describe_neuron(module)
    assert spec.kernel is None and is_neuron(module) and not is_memory_free(module)
    assert (spec.carried, spec.takes_sequences) == (carried, takes_sequences)
    assert set(spec.state.all) == set(names)


# the frameworks' own neurons that are a sum over inputs and own spikes: kind and rest of the reset
LIFS = {
    "IFNode": (lambda **o: neuron.IFNode(**o), "zero", 0.0),
    "LIFNode, soft": (lambda **o: neuron.LIFNode(tau=3.0, v_reset=None, **o), "subtract", 0.0),
    "LIFNode, hard": (lambda **o: neuron.LIFNode(tau=3.0, v_reset=-0.25, **o), "zero", -0.25),
    "LIFNode, its input as it is": (lambda **o: neuron.LIFNode(decay_input=False, **o), "zero", 0.0),
    "ParametricLIFNode": (
        lambda **o: neuron.ParametricLIFNode(init_tau=3.0, v_reset=0.125, **o),
        "zero",
        0.125,
    ),
    "Leaky": (lambda **o: snn.Leaky(0.9, **o), "subtract", 0.0),
    "Leaky of channels": (
        lambda **o: snn.Leaky(torch.rand(3), threshold=torch.rand(3), **o),
        "subtract",
        0.0,
    ),
    "Leaky, hard": (lambda **o: snn.Leaky(0.9, reset_mechanism="zero", **o), "zero", 0.0),
    "Leaky, hard at once": (
        lambda **o: snn.Leaky(0.9, reset_mechanism="zero", reset_delay=False, **o),
        "zero",
        0.0,
    ),
    "Leaky without": (lambda **o: snn.Leaky(0.9, reset_mechanism="none", **o), None, 0.0),
    "Lapicque": (lambda **o: snn.Lapicque(R=2.0, C=1.5, **o), "subtract", 0.0),
    "Lapicque without": (lambda **o: snn.Lapicque(beta=0.7, reset_mechanism="none", **o), None, 0.0),
}
if hasattr(neuron, "SLTTLIFNode"):
    from spikingjelly.activation_based.model import spike_dhs

    LIFS |= {
        "OTTTLIFNode": (lambda **o: neuron.OTTTLIFNode(tau=3.0, **o).eval(), "subtract", 0.0),
        "SLTTLIFNode": (lambda **o: neuron.SLTTLIFNode(tau=3.0, **o).eval(), "zero", 0.0),
        "save_v_LIFNode": (lambda **o: spike_dhs.save_v_LIFNode(tau=1.25, decay_input=False), "zero", 0.0),
    }


@torch.no_grad()
@pytest.mark.parametrize("name", LIFS)
def test_a_framework_s_own_neuron_is_the_sum_that_its_description_says(name):
    """From the description alone, in a loop over sums: the spikes of the neuron itself."""
    make, kind, rest = LIFS[name]
    module = make().double()
    spec = describe_neuron(module)
    assert spec.kernel is not None and spec.carried == POTENTIAL
    assert (None if spec.reset is None else spec.reset.kind) == kind
    assert spec.keeps_potential and not spec.is_memory_free
    x_seq = torch.randn(40, 2, 3, dtype=torch.double) + 0.4
    value = spec.kernel()
    decay, gain = (torch.as_tensor(v, dtype=torch.double) for v in (value.decay, value.gain))
    threshold = torch.as_tensor(spec.threshold, dtype=torch.double)
    fired: list[torch.Tensor] = []
    for t in range(len(x_seq)):
        u, alive = torch.zeros_like(x_seq[0]) + rest, torch.ones(2, 3, dtype=torch.bool)
        for lag in range(t + 1):
            if lag and kind == "zero":
                alive = alive & (fired[t - lag] == 0)
            u = u + torch.where(alive, gain * decay**lag * x_seq[t - lag], 0.0)
            if lag and kind == "subtract":
                u = u - threshold * decay ** (lag - spec.reset.delay) * fired[t - lag]
        fired.append(((u > threshold) if spec.fires_above_only() else (u >= threshold)).double())
    found = [module(x) for x in x_seq]
    found = torch.stack([one[0] if isinstance(one, tuple) else one for one in found])
    assert torch.equal(found.double(), torch.stack(fired)) and 0 < found.mean() < 1


def test_a_neuron_whose_method_was_replaced_may_compute_anything():
    for module, name in ((neuron.LIFNode(), "single_step_forward"), (snn.Leaky(0.5), "fire")):
        setattr(module, name, lambda x: x)
        assert describe_neuron(module).kernel is None


def test_what_is_no_neuron_has_no_description():
    for module in (nn.ReLU(), layer.Linear(2, 3), nn.Sequential(MFP()), HistoryKernel(decay=0.5)):
        assert describe_neuron(module) is None and kept_tensors(module) == []


def test_a_neuron_of_ones_own_may_describe_itself():
    class Own(nn.Module):
        def neuron_spec(self) -> NeuronSpec:
            return NeuronSpec(HistoryKernel(decay=0.5, order=2), Carried("inputs", 1), 1.0, lambda u: u)

    spec = describe_neuron(Own())
    assert is_memory_free(Own()) and spec.kernel().taps(2).flatten().tolist() == [1.0, 0.5]
    with pytest.raises(ValueError, match="does not fire spikes of 0 and 1"):
        spec.fires_above_only()


def test_thresholds_and_kernels_say_how_they_spread_over_a_step():
    node = MFPNode(num_channels=3, learnable=True, reset=None)
    assert describe_neuron(node).kernel_shape is describe_neuron(node).threshold_shape is None
    node.v_threshold = torch.ones(3, 1)
    assert describe_neuron(node).threshold_shape == (3, 1)
    leaky = describe_neuron(
        MFPLeaky(torch.rand(3, 1), threshold=torch.full((3, 1), torch.inf), reset_mechanism="none")
    )
    assert leaky.kernel_shape == leaky.threshold_shape == (3, 1) and leaky.never_fires
    assert describe_neuron(MFPLeaky(0.5, num_channels=3, reset_mechanism="none")).kernel_shape is None


@pytest.mark.parametrize(
    "options",
    [{"init_hidden": hidden, "output": output} for hidden in (False, True) for output in (False, True)],
    ids=str,
)
def test_whether_a_call_returns_its_potential_is_known(options):
    for neuron_class in (MFPLeaky, snn.Leaky):
        module = neuron_class(0.5, **options)
        is_tuple = isinstance(module(torch.ones(2)), tuple)
        assert describe_neuron(module).returns_potential is is_tuple


@pytest.mark.parametrize(
    "module",
    [
        MFPNode(order=2, reset=None),
        MFPLeaky(0.5, reset_mechanism="none"),
        MFPLeakyParallel(0.5, reset_mechanism="none"),
    ],
)
def test_a_state_is_found_and_replaced_past_the_checks_of_its_setter(module):
    module(torch.ones(2, 3))
    assert [name for name, _ in kept_tensors(module)] == list(describe_neuron(module).state.all)
    stand_in = torch.full((2, 3), 7.0)
    name = describe_neuron(module).state.potential
    put_state(module, name, stand_in)
    assert getattr(module, name) is stand_in


@pytest.mark.parametrize("neuron_class", [MFP, MFPNode, MFPLeaky, MFPLeakyParallel])
def test_all_neurons_take_the_same_options_for_their_kernels(neuron_class):
    known = inspect.signature(HistoryKernel).parameters
    ours = inspect.signature(neuron_class).parameters
    assert ours["kernel"].default == known["kind"].default
    for name in ("order", "time_steps", "num_channels", "kernel_bits", "stride"):
        assert ours[name].default == known[name].default
        assert ours[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert ("learnable" in ours) != ("learn_beta" in ours)  # as snnTorch calls it
    with pytest.raises(TypeError, match=rf"{neuron_class.__name__}.__init__\(\) got an unexpected .* 'ordr'"):
        neuron_class(0.5 if neuron_class is not MFPNode else 2.0, ordr=3)
