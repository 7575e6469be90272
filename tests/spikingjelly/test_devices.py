"""MFPNode follows its input to another device: every kernel, with the other options in turn."""

import itertools

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from mfp_neurons import convert
from mfp_neurons.spikingjelly import MFPNode
from tests.meta_device import check_on_meta, rotated
from tests.test_devices import CHANNELS, KERNELS, STEPS, in_channels, name


@pytest.mark.parametrize("kernel", KERNELS, ids=name)
def test_mfp_node_follows_its_input_with_every_kernel(kernel):
    thresholds = (None, (1,), (CHANNELS,), (CHANNELS, 1))
    rest = itertools.product((False, True), "ms", thresholds, (False, True))
    x = torch.empty(STEPS, 2, CHANNELS, 5)
    for options, (store, mode, threshold, decay_input) in zip(
        in_channels(kernel), rotated(rest, KERNELS.index(kernel), 2), strict=False
    ):
        node = MFPNode(2.0, decay_input, step_mode=mode, store_v_seq=store, **options, reset=None)
        if threshold is not None:
            node.v_threshold = torch.empty(threshold, device="meta")
        check_on_meta(node, [x] if mode == "m" else list(x), functional.reset_net)


@pytest.mark.parametrize("kind", [neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode])
@pytest.mark.parametrize("options", [{}, {"order": 2, "kernel_bits": "pow2"}], ids=str)
@pytest.mark.parametrize("mode", ["m", "s"])
def test_a_converted_network_follows_its_input_also_with_its_batch_norm(kind, options, mode):
    for fuse, training in ((False, True), (True, False), (True, True)):
        net = nn.Sequential(layer.Conv2d(3, CHANNELS, 1), layer.BatchNorm2d(CHANNELS), kind())
        functional.set_step_mode(net, mode)
        net = convert(net, fuse=fuse, **options).train(training)
        x = torch.empty(STEPS, 2, 3, 4, 4)
        check_on_meta(net, [x] if mode == "m" else list(x), functional.reset_net)
