"""Float weights made for given codes and scales: they quantize to nothing else, whatever the layer was."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons.quantize import Codes, codes, quantize_weights
from mfp_neurons.quantize.latent import latent

BITS = st.sampled_from([1, 1.58, 2, 3, 4, 5, 6, 7, 8])


@st.composite
def layers(draw: st.DrawFn) -> nn.Module:
    """A quantized layer of ordinary or strange weights, its learned step as training may have left it."""
    torch.manual_seed(draw(st.integers(0, 2**32)))
    outputs, inputs = draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 3, 7, 64, 300, 6272]))
    layer = nn.Linear(inputs, outputs)
    size = draw(st.sampled_from([1e-30, 1e-3, 1.0, 3.7, 1e20]))
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, inputs) * size * torch.rand(outputs, 1))
        if draw(st.booleans()):
            layer.weight[0] = 0.0
        if draw(st.booleans()):
            layer.weight[-1] = layer.weight[-1].sign() * 1e-42  # below the smallest scale
        quantize_weights(layer, draw(BITS))
        step = getattr(layer, "weight_step", None)
        if step is not None:
            step.mul_(torch.empty_like(step).uniform_(-3, 3))
    return layer


@given(layers())
def test_the_weights_that_are_made_have_the_same_codes_and_scales_bit_for_bit(layer: nn.Module) -> None:
    wanted = codes(layer)
    weight, step = latent(wanted)
    other = quantize_weights(nn.Linear(weight.shape[1], weight.shape[0]), wanted.bits)
    state = {"weight": weight, "bias": layer.bias} | ({} if step is None else {"weight_step": step})
    other.load_state_dict(state)
    found = codes(other)
    assert torch.equal(found.codes, wanted.codes)
    assert torch.equal(found.scale, wanted.scale)
    assert torch.equal(other.quantized_weight(), layer.quantized_weight())


@given(layers(), st.integers(0, 2**32))
def test_their_sizes_add_up_to_the_same_sum_in_every_order(layer: nn.Module, seed: int) -> None:
    sizes = latent(codes(layer))[0].abs()
    torch.manual_seed(seed)
    shuffled = sizes[:, torch.randperm(sizes.shape[1])]
    one_by_one = torch.zeros(len(sizes))
    for column in shuffled.T:
        one_by_one += column
    assert torch.equal(one_by_one.double(), sizes.double().sum(1))
    assert torch.equal(shuffled.sum(1), sizes.sum(1))


@given(layers())
def test_a_weight_is_where_its_code_says(layer: nn.Module) -> None:
    made = codes(layer)
    weight, _ = latent(made)
    positions = weight.double() / made.scale.double()
    assert bool(((positions - made.codes).abs() < 0.5).all()) or float(made.scale.min()) < 1e-37


def test_a_convolution_keeps_its_shape() -> None:
    layer = quantize_weights(nn.Conv2d(3, 4, 5), bits=4)
    weight, step = latent(codes(layer))
    assert weight.shape == layer.weight.shape
    assert step is not None
    assert step.shape == layer.weight_step.shape


def unreachable() -> Tensor:
    """A scale that no float divided by 3 rounds to."""
    scales = torch.nextafter(torch.tensor(1.9), torch.tensor(2.0)).repeat(64)
    for i in range(1, 64):
        scales[i] = torch.nextafter(scales[i - 1], torch.tensor(2.0))
    totals = (scales.double() * 3).float()
    near = torch.stack([totals, torch.nextafter(totals, totals * 2), torch.nextafter(totals, totals * 0)])
    return scales[((near / 3) != scales).all(0)][0]


def test_a_scale_that_no_mean_can_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no float32 weight"):
        latent(Codes(torch.ones(1, 3, dtype=torch.int8), unreachable().reshape(1, 1), 1))
