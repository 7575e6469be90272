"""Codes, scales and gradients of quantized weights against formulas written out another way, and back."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mfp_neurons.quantize import Codes, codes, materialize, quantize_weights
from mfp_neurons.quantize.latent import latent

BITS = [1, 1.58, 2, 3, 4, 5, 6, 7, 8]
RANGES = {1: (-1, 1), 1.58: (-1, 1), 2: (-2, 1)} | {
    b: (-(2 ** (b - 1)) + 1, 2 ** (b - 1) - 1) for b in range(3, 9)
}
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@st.composite
def weights(draw: st.DrawFn, dtypes: list[torch.dtype] = DTYPES) -> Tensor:
    """[out, in, *kernel], of many sizes; zeros of both signs and whole channels of them."""
    dims = draw(st.integers(2, 5))
    shape = [draw(st.integers(1, 5)) for _ in range(dims)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    weight = torch.randn(shape, generator=generator, dtype=torch.float64) * 10.0 ** draw(st.integers(-3, 2))
    if draw(st.booleans()):
        weight = weight * torch.randint(-1, 2, shape, generator=generator)  # gives zeros of both signs
    if draw(st.booleans()):
        weight[0] = 0
    return weight.to(draw(st.sampled_from(dtypes)))


def layer_of(weight: Tensor, bits: float) -> nn.Module:
    """A quantized layer with this weight."""
    shape = weight.shape
    if weight.ndim == 2:
        layer: nn.Module = nn.Linear(shape[1], shape[0], bias=False, dtype=weight.dtype)
    else:
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[weight.ndim - 3]
        layer = kind(shape[1], shape[0], tuple(shape[2:]), bias=False, dtype=weight.dtype)
    quantize_weights(layer, bits)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


@pytest.mark.parametrize("bits", BITS)
@given(weights())
def test_the_weight_is_codes_in_range_times_a_positive_scale_bit_for_bit(bits: float, weight: Tensor) -> None:
    layer = layer_of(weight, bits)
    read, used = codes(layer), layer.quantized_weight()
    product = read.codes * read.scale
    bytes_of = {2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    assert product.dtype == used.dtype == weight.dtype
    assert torch.equal(product.view(bytes_of), used.view(bytes_of))
    low, high = RANGES[bits]
    assert read.codes.dtype == torch.int8 and read.codes.shape == weight.shape and read.bits == bits
    assert low <= int(read.codes.min()) and int(read.codes.max()) <= high
    assert read.scale.shape == (weight.shape[0], *[1] * (weight.ndim - 1))
    assert bool((read.scale > 0).all() & read.scale.isfinite().all())
    assert bits != 1 or bool((read.codes != 0).all())


def per_channel(values: Tensor) -> Tensor:
    """Sums over all but the output channels."""
    return values.sum(tuple(range(1, values.ndim)), keepdim=True)


def defined(weight: Tensor, step: Tensor | None, bits: float) -> tuple[Tensor, Tensor]:
    """Codes and scale as the table in the docstring of ``mfp_neurons.quantize`` has them."""
    mean = per_channel(weight.abs()) / weight[0].numel()
    if bits == 1:
        codes, scale = torch.where(weight >= 0, 1.0, -1.0), mean
    elif bits == 1.58:
        kept = weight.abs() > 0.7 * mean
        codes, scale = kept * weight.sign(), per_channel(kept * weight.abs()) / per_channel(kept).clamp_min(1)
    else:
        low, high = RANGES[bits]
        scale = (1.0 if step is None else step) * (mean * (2 / math.sqrt(high))).detach()
        codes = (weight / scale.clamp_min(1e-300)).round().clamp(low, high)
    return codes.to(weight.dtype), scale


@pytest.mark.parametrize("bits", BITS)
@given(weights([torch.float64]))
def test_codes_and_scales_are_those_of_the_definition(bits: float, weight: Tensor) -> None:
    read = codes(layer_of(weight, bits))
    expected, scale = defined(weight, None, bits)
    torch.testing.assert_close(read.scale, scale.clamp_min(torch.finfo(torch.float64).tiny))
    assert torch.equal(read.codes.double(), expected + 0.0)


@pytest.mark.parametrize("shape", [(3, 7), (4, 2, 3, 3)])
@pytest.mark.parametrize("bits", BITS)
def test_gradients_equal_the_chain_rule_with_rounding_passed_straight_through(
    bits: float, shape: tuple[int, ...]
) -> None:
    weight = torch.randn(shape, dtype=torch.float64)
    layer = layer_of(weight, bits)
    step = None
    if bits not in (1, 1.58):
        with torch.no_grad():
            layer.weight_step.uniform_(0.3, 1.5)  # small steps, so that some weights lie outside the range
        step = layer.weight_step.detach().clone().requires_grad_()
    upstream = torch.randn(shape, dtype=torch.float64)
    layer.quantized_weight().backward(upstream)
    # every derivative is left to autograd but that of rounding, which is set to 1
    twin = weight.clone().requires_grad_()
    rounded, scale = defined(twin, step, bits)
    position = (twin / scale).clamp(*RANGES[bits]) if step is not None else twin / scale
    value = scale * (position + (rounded - position).detach())
    value.backward(upstream)
    torch.testing.assert_close(layer.quantized_weight(), value)
    torch.testing.assert_close(layer.weight.grad, twin.grad)
    if step is not None:
        high = RANGES[bits][1]
        first = per_channel(weight.abs()) / weight[0].numel() * 2 / math.sqrt(high)
        # LSQ's gradient scale is 1/sqrt(n high) for a step s; s / first is to change by the same factor
        balance = 1 / math.sqrt(weight[0].numel() * high) / first**2
        torch.testing.assert_close(layer.weight_step.grad, step.grad * balance)


def test_a_negative_step_means_its_size_and_gets_the_gradient_of_that() -> None:
    weight, upstream = torch.randn(3, 5), torch.randn(3, 5)
    plus, minus = layer_of(weight, 4), layer_of(weight, 4)
    with torch.no_grad():
        minus.weight_step.neg_()
    for layer in (plus, minus):
        layer.quantized_weight().backward(upstream)
    assert torch.equal(plus.quantized_weight(), minus.quantized_weight())
    assert torch.equal(plus.weight_step.grad, -minus.weight_step.grad)


@pytest.mark.parametrize("step", [0.0, -0.0, 1e-45, -1e-40, 1e-30, -1e-30, 1e30, math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", range(2, 9))
def test_no_step_gives_a_nan_gradient(bits: int, dtype: torch.dtype, step: float) -> None:
    layer = layer_of(torch.tensor([[0.0, 1e-3, -20.0, 300.0]], dtype=dtype), bits)
    with torch.no_grad():
        layer.weight_step.fill_(step)
    layer.quantized_weight().backward(torch.tensor([[1.0, -2.0, 3.0, 0.5]], dtype=dtype))
    assert not any(bool(p.grad.isnan().any()) for p in layer.parameters())


@pytest.mark.parametrize("bits", BITS)
@given(weights([torch.float64]), st.integers(-8, 8))
def test_the_unit_of_the_weights_changes_the_scale_alone(bits: float, weight: Tensor, exponent: int) -> None:
    layer, other = layer_of(weight, bits), layer_of(weight * 2.0**exponent, bits)
    assert torch.equal(codes(layer).codes, codes(other).codes)
    upstream = torch.ones_like(weight)
    layer.quantized_weight().backward(upstream)
    other.quantized_weight().backward(upstream)
    torch.testing.assert_close(layer.weight.grad, other.weight.grad)


@pytest.mark.parametrize("size", [0.0, 1e-20])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", BITS)
def test_channels_of_zeros_or_nearly_so_can_learn_and_gradients_stay_small(
    bits: float, dtype: torch.dtype, size: float
) -> None:
    layer = layer_of((torch.randn(2, 64) * size).to(dtype), bits)
    layer.quantized_weight().backward(torch.randn(2, 64).to(dtype))
    assert bool(layer.quantized_weight().isfinite().all())
    assert all(float(p.grad.abs().max()) < 1e4 for p in layer.parameters())  # no NaN either
    assert bool((layer.weight.grad != 0).any())


@pytest.mark.parametrize("bits", [1, 1.58])
@given(weights([torch.float64]))
def test_quantizing_quantized_values_again_changes_nothing(bits: float, weight: Tensor) -> None:
    once = layer_of(weight, bits)
    twice = quantize_weights(materialize(once), bits)
    torch.testing.assert_close(twice.quantized_weight(), once.quantized_weight(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_autocast_leaves_the_arithmetic_in_float32(bits: float, low: torch.dtype) -> None:
    layer = layer_of(torch.randn(6, 5), bits)
    expected, x = layer.quantized_weight(), torch.randn(3, 5)
    with torch.autocast("cpu", dtype=low):
        used, y = layer.quantized_weight(), layer(x)
    y.float().sum().backward()
    assert used.dtype == torch.float32 and torch.equal(used, expected)
    assert y.dtype == low and layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bits", BITS)
def test_sixteen_bit_weights_are_quantized_as_if_they_were_float32(bits: float, dtype: torch.dtype) -> None:
    weight = torch.randn(4, 40).to(dtype)
    low, high = codes(layer_of(weight, bits)), codes(layer_of(weight.float(), bits))
    torch.testing.assert_close(low.scale, high.scale.to(dtype), rtol=0, atol=0)
    assert int((low.codes - high.codes).abs().max()) <= 1  # the scale is rounded to what the layer can hold
    assert float((low.codes != high.codes).float().mean()) < 0.15


@pytest.mark.parametrize("bits", BITS)
def test_functional_transforms_see_the_same_gradient(bits: float) -> None:
    layer, x = layer_of(torch.randn(3, 4), bits), torch.randn(5, 4)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, parameters, (x,)).square().sum()

    by_func = torch.func.grad(loss)(parameters, x)
    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    layer(x).square().sum().backward()
    for name, p in layer.named_parameters():
        torch.testing.assert_close(by_func[name], p.grad)
        torch.testing.assert_close(per_sample[name].sum(0), p.grad)


# --- float weights made for given codes and scales ---


@st.composite
def trained_layers(draw: st.DrawFn) -> nn.Module:
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
        quantize_weights(layer, draw(st.sampled_from(BITS)))
        step = getattr(layer, "weight_step", None)
        if step is not None:
            step.mul_(torch.empty_like(step).uniform_(-3, 3))
    return layer


@given(trained_layers(), st.integers(0, 2**32))
def test_weights_made_for_codes_and_scales_have_them_bit_for_bit_however_they_are_summed(
    layer: nn.Module, seed: int
) -> None:
    target = codes(layer)
    weight, step = latent(target)
    other = quantize_weights(nn.Linear(weight.shape[1], weight.shape[0]), target.bits)
    state = {"weight": weight, "bias": layer.bias} | ({} if step is None else {"weight_step": step})
    other.load_state_dict(state)
    read = codes(other)
    assert torch.equal(read.codes, target.codes) and torch.equal(read.scale, target.scale)
    assert torch.equal(other.quantized_weight(), layer.quantized_weight())
    # no sum of their sizes is rounded, in whichever order
    torch.manual_seed(seed)
    shuffled = weight.abs()[:, torch.randperm(weight.shape[1])]
    one_by_one = torch.zeros(len(weight))
    for column in shuffled.T:
        one_by_one += column
    assert torch.equal(one_by_one.double(), weight.abs().double().sum(1))
    assert torch.equal(shuffled.sum(1), weight.abs().sum(1))
    # every weight is where its code says
    distances = (weight.double() / target.scale.double() - target.codes).abs()
    assert bool((distances < 0.5).all()) or float(target.scale.min()) < 1e-37


def test_weights_made_for_a_convolution_have_its_shape() -> None:
    layer = quantize_weights(nn.Conv2d(3, 4, 5), bits=4)
    weight, step = latent(codes(layer))
    assert weight.shape == layer.weight.shape
    assert step is not None and step.shape == layer.weight_step.shape


def test_a_scale_that_no_mean_can_be_is_refused() -> None:
    scale = torch.tensor(1.9)
    while True:  # until no float divided by 3 rounds to it
        scale = torch.nextafter(scale, torch.tensor(2.0))
        total = (scale.double() * 3).float()
        near = torch.stack([total, total.nextafter(total * 2), total.nextafter(total * 0)])
        if bool((near / 3 != scale).all()):
            break
    with pytest.raises(ValueError, match="no float32 weight"):
        latent(Codes(torch.ones(1, 3, dtype=torch.int8), scale.reshape(1, 1), 1))


# --- large weights ----------------------------------------------------------------------------------------


class Watch(TorchDispatchMode):
    """Notes every operator; it has to see each one once, with the whole weight, as a compiler has."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def quantized_and_gradients(layer: Any, grad: Tensor) -> list[Tensor]:
    layer.zero_grad()
    value = layer.quantized_weight()
    value.backward(grad)
    return [value.detach(), *(parameter.grad for parameter in layer.parameters())]


@given(
    bits=st.sampled_from(BITS), dtype=st.sampled_from(DTYPES), columns=st.integers(1, 300_000), data=st.data()
)
def test_a_large_weight_a_block_of_rows_at_a_time_is_what_it_is_at_once(bits, dtype, columns, data):
    rows = max(2, data.draw(st.integers(600_000, 1_200_000)) // columns)
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    layer = layer_of(torch.randn(rows, columns).to(dtype), bits)
    grad = torch.randn(rows, columns).to(dtype)
    mine = quantized_and_gradients(layer, grad)
    with Watch():
        whole = quantized_and_gradients(layer, grad)
    assert all(torch.equal(a, b) for a, b in zip(mine, whole, strict=True))


def test_whoever_watches_operators_sees_a_large_weight_quantized_at_once():
    seen = []
    for rows in (2, 2000):
        with Watch() as watch:
            layer_of(torch.ones(rows, 600), 1).quantized_weight()
        seen.append(watch.seen)
    assert seen[0] == seen[1]
