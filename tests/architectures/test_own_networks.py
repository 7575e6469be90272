"""The method's own networks as functions: the field's shapes, orders layer by layer, errors."""

import pytest
import torch
from torch import nn

from mfp_neurons import MFP, zoo
from mfp_neurons.architectures.layers import PerStep, StillImageSequential


def synapses(net: nn.Module) -> list[tuple[int, ...]]:
    """[out, in, height, width] of convolutions, [out, in] of linear layers, shortcuts left out."""
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return [tuple(m.weight.shape) for m in layers if m.weight.shape[2:] != (1, 1)]


def test_resnet19_has_nineteen_layers_of_the_fields_widths() -> None:
    shapes = synapses(zoo.mfp_qsnn_resnet19(3, 100))
    assert [shape[0] for shape in shapes] == [128] * 7 + [256] * 6 + [512] * 4 + [256, 100]
    assert len(shapes) == 19 and all(shape[2:] in ((3, 3), ()) for shape in shapes)


def test_resnet19_halves_maps_at_its_second_and_third_stage() -> None:
    net = zoo.mfp_qsnn_resnet19(1, 10, width=2)
    x, sides = net.stem_neuron(net.stem(torch.rand(2, 1, 1, 16, 16))), []
    for block in net.blocks:
        x = block(x)
        assert set(x.unique().tolist()) <= {0.0, 1.0}  # nothing but spikes leaves a block
        sides.append(x.shape[-1])
    assert sides == [16, 16, 16, 8, 8, 8, 4, 4]


def test_vggsnn_has_the_widths_of_the_field_and_a_pool_behind_each_pair() -> None:
    shapes = synapses(zoo.mfp_qsnn_vggsnn((2, 48, 48), 10))
    assert [shape[0] for shape in shapes] == [64, 128, 256, 256, 512, 512, 512, 512, 10]
    assert shapes[-1] == (10, 512 * 3 * 3)


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (lambda **options: zoo.mfp_qsnn_resnet19(1, 10, width=2, **options), 18),
        (lambda **options: zoo.mfp_qsnn_vggsnn((2, 16, 16), 10, width=2, **options), 8),
    ],
    ids=["resnet19", "vggsnn"],
)
def test_orders_are_for_all_layers_or_one_for_each(make, layers: int) -> None:
    orders = [1 + i % 5 for i in range(layers)]
    assert [m.kernel.order for m in make(order=orders).modules() if isinstance(m, MFP)] == orders
    assert {m.kernel.order for m in make(order=3).modules() if isinstance(m, MFP)} == {3}
    with pytest.raises(ValueError, match=rf"order .* each of the {layers} layers .* got 3"):
        make(order=[1, 2, 3])
    with pytest.raises(ValueError, match="bits must be"):
        make(weight_bits=9)
    with pytest.raises(ValueError, match=r"16 x 16 or more, got \[2, 15, 16\]"):
        zoo.mfp_qsnn_vggsnn((2, 15, 16))


def test_layers_over_a_sequence_are_those_of_each_step_and_compute_a_still_image_once() -> None:
    shapes: list[torch.Size] = []
    layers = PerStep(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2))
    layers[0].register_forward_hook(lambda module, args, output: shapes.append(args[0].shape))
    x = torch.rand(4, 5, 2, 8, 8)
    still = x[:1].expand(7, -1, -1, -1, -1)
    for sequence in (x, still, still.contiguous()):
        expected = torch.stack([nn.Sequential(*layers)(step) for step in sequence])
        shapes.clear()
        torch.testing.assert_close(layers(sequence), expected)
        assert shapes == [(5 if sequence is still else sequence.shape[0] * 5, 2, 8, 8)]


def still_stack(order: int) -> StillImageSequential:
    """Two convolutions as SpikingJelly builds them, with neurons of orders 1 and ``order``."""
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    torch.manual_seed(0)
    layers = []
    for inputs, outputs, taps in ((1, 4, 1), (4, 3, order)):
        neuron = MFP(kernel="fir", order=taps, num_channels=outputs, v_threshold=0.2)
        layers += [layer.Conv2d(inputs, outputs, 3, step_mode="m"), layer.BatchNorm2d(outputs, step_mode="m")]
        layers += [neuron, layer.MaxPool2d(2, step_mode="m")]
    return StillImageSequential(*layers, layer.Dropout(0.5, step_mode="m")).double()


@pytest.mark.parametrize("order", [1, 3])
def test_a_picture_that_stands_still_trains_layers_as_its_repetition_does(order: int) -> None:
    image = torch.rand(1, 6, 1, 16, 16, dtype=torch.float64)
    made, gradients, variances = [], [], []
    for x in (image.expand(5, -1, -1, -1, -1), image.repeat(5, 1, 1, 1, 1)):
        layers = still_stack(order)
        torch.manual_seed(1)
        made.append(layers(x))
        (made[-1] * torch.arange(5.0, dtype=torch.float64).reshape(5, 1, 1, 1, 1)).sum().backward()
        gradients.append([parameter.grad for parameter in layers.parameters()])
        variances.append(layers[1].running_var)
    assert 0 < made[0].count_nonzero() < made[0].numel()
    torch.testing.assert_close(made[0], made[1])
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(*variances, rtol=1e-3, atol=0)  # n / (n - 1), for n = 1,176 and 5,880


def test_a_neuron_that_sees_its_own_spikes_knows_of_time() -> None:
    neuron = MFP(order=1, reset="feedback", reset_order=1)
    with torch.no_grad():
        neuron.feedback.taps.fill_(-1.0)
    spikes = StillImageSequential(neuron)(torch.ones(1, 2, 3).expand(4, 2, 3))
    assert spikes.mean((1, 2)).tolist() == [1, 0, 1, 0]


def test_layers_that_know_no_time_are_computed_once_in_training_alone() -> None:
    layers, seen = still_stack(3), []
    for part in (layers[4], layers[6]):
        part.register_forward_hook(lambda module, args, made: seen.append(len(args[0])))
    still = torch.rand(1, 2, 1, 16, 16, dtype=torch.float64).expand(5, -1, -1, -1, -1)
    layers(still)
    layers(still.contiguous())
    layers.eval()(still)
    assert seen == [1, 5, 5, 5, 5, 5]
    # the diagonal of a matrix differs from step to step
    layers = StillImageSequential(MFP(kernel="matrix", order=1, time_steps=5, v_threshold=0.5))
    still = torch.rand(1, 4, 3).expand(5, -1, -1)
    assert torch.equal(layers(still), layers(still.contiguous()))
