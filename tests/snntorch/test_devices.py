"""Both neurons follow their input to another device: every kernel, with the other options in turn."""

import itertools
import pickle
from contextlib import contextmanager

import pytest
import snntorch as snn
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mfp_neurons import convert
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel, reset
from mfp_neurons.surrogate import ATan
from tests.meta_device import check_on_meta, rotated

STEPS, FEATURES = 4, 3
EACH = torch.rand(FEATURES) * 0.5 + 0.25

KERNELS = [
    {},
    {"learn_beta": True},
    {"beta": 0.5, "kernel_bits": "pow2"},
    *(
        {"order": order, "kernel_bits": bits, "learn_beta": learnt}
        for order, bits, learnt in itertools.product((1, 2, STEPS), (None, "pow2", 4), (False, True))
    ),
    *({"kernel": "fir", "order": 3, "kernel_bits": bits} for bits in (None, "pow2", 4)),
    *({"kernel": "matrix", "time_steps": STEPS, "order": order} for order in (None, 2)),
]
OPERANDS = [
    {},
    {"beta": EACH},
    {"gain": 2.0},
    {"threshold": EACH, "gain": EACH, "beta": EACH},
    {"learn_threshold": True, "graded_spikes_factor": 2.0, "learn_graded_spikes_factor": True},
    {"num_channels": FEATURES},
]
HABITS = [{"init_hidden": True}, {"init_hidden": True, "output": True, "spike_grad": ATan()}]


def accepted(kernel: dict, operand: dict) -> dict:
    options = {"beta": 0.9} | kernel | operand
    if options.get("kernel") == "matrix" and "num_channels" in options:
        options.pop("num_channels")
    if options.get("kernel") in ("fir", "matrix") and isinstance(options["beta"], torch.Tensor):
        if options["kernel"] == "matrix":
            options |= {"beta": 0.9, "gain": 1.0}
        else:
            options |= {"num_channels": FEATURES}
    if "kernel_bits" in kernel and "order" not in kernel:
        options |= {"beta": 0.5, "gain": 1.0}
    return options


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_both_neurons_follow_their_input_with_every_kernel(kernel):
    x = torch.empty(STEPS, 2, FEATURES)
    for operand, habit in rotated(itertools.product(OPERANDS, HABITS), KERNELS.index(kernel), 3):
        options = accepted(kernel, operand) | habit
        check_on_meta(MFPLeakyParallel(**options, reset_mechanism="none"), [x], reset)
        check_on_meta(MFPLeaky(**options, reset_mechanism="none"), list(x), reset)


@pytest.mark.parametrize(
    "neuron",
    [
        lambda: snn.Leaky(0.9, init_hidden=True),
        lambda: snn.Lapicque(0.9, init_hidden=True),
        lambda: snn.StateLeaky(0.9, channels=FEATURES),
    ],
    ids=["Leaky", "Lapicque", "StateLeaky"],
)
@pytest.mark.parametrize("options", [{}, {"order": 2}, {"order": 2, "kernel_bits": "pow2"}], ids=str)
def test_a_converted_network_follows_its_input(neuron, options):
    whole = neuron()
    net = convert(nn.Sequential(nn.Linear(5, FEATURES), whole), **options)
    x = torch.empty(STEPS, 2, 5)
    check_on_meta(net, [x] if isinstance(whole, snn.StateLeaky) else list(x), reset)


def test_spikes_are_multiplied_by_a_factor_other_than_one_alone_and_whenever_it_has_changed():
    lif, x = MFPLeakyParallel(beta=0.9, reset_mechanism="none"), torch.full((STEPS, 2, FEATURES), 2.0)
    with products_of_sequences() as products:
        assert (lif(x)[0] == 1).all() and lif(x)[0].all()
        assert not products
        lif.graded_spikes_factor.fill_(3.0)
        assert (lif(x)[0] == 3).all()
        lif.graded_spikes_factor = torch.tensor(0.5)
        assert (lif(x)[0] == 0.5).all()
        lif.graded_spikes_factor.fill_(1.0)
        assert (lif(x)[0] == 1).all()
        assert len(products) == 2
    assert pickle.loads(pickle.dumps(MFPLeakyParallel(beta=0.9, spike_grad=ATan(), reset_mechanism="none")))(
        x
    )[0].all()


@contextmanager
def products_of_sequences():
    products = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.mul.Tensor and args[0].shape == (STEPS, 2, FEATURES):
                products.append(args)
            return func(*args, **(kwargs or {}))

    with Watch():
        yield products


def test_free_taps_are_made_on_torchs_default_device():
    with torch.device("meta"):  # snn.Leaky, and so MFPLeaky, cannot be made there: it reads its numbers
        neuron = MFPLeakyParallel(0.9, kernel="fir", order=3, reset_mechanism="none")
    assert neuron.kernel.taps.device.type == "meta"
