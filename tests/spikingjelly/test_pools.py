"""Compact max pools: torch's own, bit for bit, in output and gradient, with less kept between the two."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mfp_neurons import convert, deploy
from mfp_neurons.spikingjelly.pools import CompactMaxPool2d
from tests.spikingjelly.test_fused_norms import lif

DTYPES = torch.float32, torch.float64, torch.float16, torch.bfloat16
STEPS, SAMPLES, CHANNELS = 2, 2, 3


@st.composite
def pools(draw) -> tuple[dict, torch.Size]:
    """Arguments of a max pool, and a height and width that it takes."""
    pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
    window = draw(pairs)
    options = dict(
        kernel_size=window,
        stride=draw(pairs),
        padding=tuple(draw(st.integers(0, size // 2)) for size in window),
        dilation=draw(st.sampled_from([1, 1, 1, 2])),
        ceil_mode=draw(st.sampled_from([False, False, True])),
    )
    return options, tuple(draw(st.integers(8, 40)) for _ in range(2))


@st.composite
def images(draw, size) -> torch.Tensor:
    """Spikes, few whole numbers, or noise: many ties or none; some are NaN, infinite or -0."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    shape = STEPS, SAMPLES, CHANNELS, *size
    kind = draw(st.sampled_from(["spikes", "counts", "noise", "special", "silent"]))
    if kind == "noise":
        x = torch.randn(shape)
    elif kind == "special":
        values = torch.tensor([0.0, -0.0, 1.0, float("nan"), float("inf"), float("-inf"), float("-inf")])
        x = values[torch.randint(0, len(values), shape)]
    else:
        x = torch.randint(0, {"spikes": 2, "counts": 4, "silent": 1}[kind], shape).float()
    return x.to(draw(st.sampled_from(DTYPES)))


def bits(x: torch.Tensor) -> torch.Tensor:
    """The numbers as they are stored, all NaNs alike."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return torch.where(x.isnan(), torch.nan, x).contiguous().view(whole)


def both(plain: nn.Module, x: torch.Tensor) -> None:
    """Compares a max pool with its compact form: outputs, and gradients of a random loss."""
    compact = copy.deepcopy(plain)
    compact.__class__ = CompactMaxPool2d
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = compact(mine), plain(theirs)
    assert torch.equal(bits(y.detach()), bits(expected.detach()))
    grad = torch.randn_like(expected) * torch.randint(0, 2, expected.shape)  # zeros of either sign too
    y.backward(grad)
    expected.backward(grad)
    assert torch.equal(bits(mine.grad), bits(theirs.grad))


@given(data=st.data())
def test_outputs_and_gradients_are_those_of_torch_bit_for_bit(data):
    options, size = data.draw(pools())
    both(layer.MaxPool2d(**options, step_mode="m"), data.draw(images(size)))


@pytest.mark.parametrize("make", [
    lambda x: x.to(memory_format=torch.channels_last),
    lambda x: x.transpose(2, 3),
    lambda x: x[..., ::2],
    lambda x: x[:0],
    lambda x: x[..., :4, :4],
    lambda x: x[0],
], ids=["channels_last", "transposed", "strided", "empty", "small", "one image"])  # fmt: skip
def test_any_input_of_a_max_pool_is_taken(make):
    both(layer.MaxPool2d(2), make(torch.randint(0, 2, (3, 4, 12, 12)).float()))


def test_an_input_that_max_pooling_refuses_is_refused_in_the_same_words():
    for options in ({"kernel_size": 10}, {"kernel_size": 2, "padding": 2}, {"kernel_size": 2, "stride": 0}):
        messages = []
        for kind in (layer.MaxPool2d, CompactMaxPool2d):
            with pytest.raises(RuntimeError) as error:
                kind(**options)(torch.zeros(2, 3, 9, 9))
            messages.append(str(error.value))
        assert messages[0] == messages[1]


def test_a_byte_a_window_is_kept_for_backward():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        CompactMaxPool2d(2)(torch.zeros(2, 3, 16, 16, requires_grad=True))
    assert [(tensor.dtype, tensor.shape) for tensor in kept] == [(torch.uint8, (2, 3, 8, 8))]


# --- in a model -------------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    """Two pools and a subclass of a pool, which has code of its own."""

    class OwnPool(layer.MaxPool2d):
        pass

    net = nn.Sequential(
        layer.Conv2d(1, 3, 3, padding=1), layer.BatchNorm2d(3), lif(), layer.MaxPool2d(2),
        layer.Conv2d(3, 3, 3, padding=1), layer.BatchNorm2d(3), lif(), layer.MaxPool2d(3, 2, 1), OwnPool(1),
        layer.Flatten(), layer.Linear(75, 4), neuron.LIFNode(),
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    return net


def test_fusing_makes_the_max_pools_of_a_model_compact():
    plain = network()
    net = convert(copy.deepcopy(plain), fuse=True)
    assert net.mfp_conversion.pools == ("3", "7")
    assert "MaxPool2d" in str(net.mfp_conversion)
    assert [type(module) is CompactMaxPool2d for module in net] == [i in (3, 7) for i in range(12)]
    assert isinstance(net[3], layer.MaxPool2d)
    assert net.state_dict().keys() == plain.state_dict().keys()
    assert convert(plain).mfp_conversion.pools == ()


def test_copies_and_pickles_of_a_compact_pool_are_compact():
    for again in (copy.deepcopy, lambda pool: pickle.loads(pickle.dumps(pool))):
        pool = again(CompactMaxPool2d(3, 2, 1, step_mode="m"))
        assert type(pool) is CompactMaxPool2d and pool.step_mode == "m"
        x = torch.randn(2, 2, 3, 9, 9)
        assert torch.equal(pool(x), layer.MaxPool2d(3, 2, 1, step_mode="m")(x))


def test_whoever_watches_operators_sees_the_max_pooling_of_torch():
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Watch():
        CompactMaxPool2d(2)(torch.zeros(2, 3, 16, 16))
    assert "aten.max_pool2d_with_indices.default" in seen


def test_transforms_of_torch_take_a_compact_pool():
    x = torch.randn(5, 2, 3, 12, 12)
    pool, plain = CompactMaxPool2d(2), layer.MaxPool2d(2)
    assert torch.equal(torch.func.vmap(pool)(x), torch.func.vmap(plain)(x))
    mine, theirs = (torch.func.grad(lambda x, of=of: of(x).square().sum())(x[0]) for of in (pool, plain))
    assert torch.equal(mine, theirs)


def test_a_fused_model_with_compact_pools_is_lowered():
    net = convert(network()[:8], fuse=True, weight_bits=2, order=2, kernel_bits="pow2").eval()
    assert deploy.check(net, torch.zeros(2, 1, 1, 20, 20)).ok
