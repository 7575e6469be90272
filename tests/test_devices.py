"""Every neuron and layer follows its input to a device: every kernel, with the other options in turn."""

import itertools
import pickle
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from mfp_neurons import MFP, QuantizedMembraneLIF, TimePool, functional, quantize_weights
from mfp_neurons.history import FIR, Exponential
from mfp_neurons.surrogate import ATan, Rect
from tests.meta_device import check_on_meta, rotated

STEPS, CHANNELS = 4, 3

# every kernel with every option that it takes
KERNELS: list[dict[str, Any]] = [
    *({"learnable": learnable} for learnable in (False, True)),
    {"kernel_bits": "pow2"},
    *(
        {"order": order, "learnable": learnable, "kernel_bits": bits, "stride": stride}
        for order, learnable, bits, stride in itertools.product(
            (1, 2, STEPS), (False, True), (None, "pow2", 4), (1, 2)
        )
    ),
    *(
        {"kernel": "fir", "order": order, "kernel_bits": bits, "stride": stride}
        for order, bits, stride in itertools.product((1, 3, STEPS + 2), (None, "pow2", 4), (1, 2))
    ),
    *(
        {"kernel": "matrix", "time_steps": STEPS, "order": order, "kernel_bits": bits}
        for order, bits in itertools.product((None, 2), (None, "pow2", 4))
    ),
]


def in_channels(kernel: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The options, for the layer as a whole and with a kernel for each channel."""
    yield kernel
    if kernel.get("kernel") != "matrix":
        yield kernel | {"num_channels": CHANNELS}


def name(kernel: dict[str, Any]) -> str:
    return "-".join(f"{key}={value}" for key, value in kernel.items()) or "default"


@pytest.mark.parametrize("kernel", KERNELS, ids=name)
def test_mfp_follows_its_input_with_every_kernel(kernel):
    rest = itertools.product((False, True), (ATan(), Rect(), torch.sigmoid))
    for options, (learn_threshold, surrogate) in zip(
        in_channels(kernel), rotated(rest, KERNELS.index(kernel), 2), strict=False
    ):
        module = MFP(0.5, **options, learn_threshold=learn_threshold, surrogate=surrogate)
        check_on_meta(module, [torch.empty(STEPS, 2, CHANNELS, 5)])


@pytest.mark.parametrize(
    ("bits", "learnable", "num_channels", "v_reset"),
    list(itertools.product((None, 1, 4), (False, True), (None, CHANNELS), (None, -0.5))),
)
def test_the_baseline_follows_its_input(bits, learnable, num_channels, v_reset):
    module = QuantizedMembraneLIF(
        0.5, bits=bits, learnable=learnable, num_channels=num_channels, v_reset=v_reset
    )
    check_on_meta(module, [torch.empty(STEPS, 2, CHANNELS)])


@pytest.mark.parametrize("bits", [1, "ternary", 2, 8])
def test_quantized_layers_and_time_pools_follow_their_input(bits):
    net = nn.Sequential(
        nn.Linear(6, 5), nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 3, 3), nn.Flatten(), nn.Linear(9, 2)
    )
    check_on_meta(quantize_weights(net, bits, first=bits, last=bits), [torch.empty(8, 6)])
    check_on_meta(TimePool(2), [torch.empty(STEPS, 2, 3)])


@pytest.mark.parametrize("kernel", [Exponential(0.5, 0.25, order=3), Exponential(0.5), FIR])
def test_a_state_is_taken_on_from_one_chunk_to_the_next(kernel):
    taps = FIR(torch.rand(3, device="meta")) if kernel is FIR else kernel
    x, state = torch.empty(2, 5, 3, device="meta"), None
    for _ in range(3):
        state = functional.fire_chunk(x, taps, state=state).state
    assert state.device.type == "meta"


def test_fixed_taps_are_the_same_after_a_copy_a_pickle_and_inference_mode():
    module = MFP(0.6, order=2, stride=2, kernel_bits="pow2")
    x = torch.rand(STEPS, 2, 3).requires_grad_()
    with torch.inference_mode():
        first = module(x)
    for same in (module, deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert not same.state_dict() and not list(same.buffers())
        spikes = same(x)
        assert torch.equal(spikes, first)
        spikes.sum().backward()  # what inference mode made is not what training saves
    assert module.kernel().taps.flatten().tolist() == [1.0, 0.0, 0.25 if 0.36 < 2**-1.5 else 0.5]


def test_fixed_taps_follow_what_is_traced():
    from torch._subclasses.fake_tensor import FakeTensorMode

    module = MFP(0.5, order=2, kernel_bits=4)
    real = torch.ones(STEPS, 2, 3)
    expected = module(real)
    with FakeTensorMode():
        assert module(torch.empty(STEPS, 2, 3, device="cuda")).device.type == "cuda"
    assert torch.equal(module(real), expected)


@pytest.mark.parametrize(
    "kernel",
    [dict(kernel="fir", order=3, stride=2), dict(kernel="matrix", time_steps=4), dict(learnable=True)],
    ids=str,
)
def test_parameters_are_made_on_torchs_default_device(kernel):
    with torch.device("meta"):
        neuron = MFP(**kernel)
    assert {parameter.device.type for parameter in neuron.parameters()} == {"meta"}
