"""Power-of-two taps as bytes: what comes back computes the same."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.history import quantize_taps
from mfp_neurons.neuron import HistoryKernel
from mfp_neurons.zoo import taps


@given(
    st.integers(1, 9),
    st.sampled_from([None, 1, 5]),
    st.sampled_from([1e-38, 1e-3, 1.0, 1e30]),
    st.integers(0, 2**32),
)
def test_taps_come_back_as_they_are_after_quantization(
    order: int, channels: int | None, size: float, seed: int
) -> None:
    torch.manual_seed(seed)
    kernel = HistoryKernel("fir", decay=0.5, order=order, num_channels=channels, kernel_bits="pow2")
    with torch.no_grad():
        kernel.taps.copy_(torch.randn_like(kernel.taps) * size * torch.rand_like(kernel.taps) ** 8)
        kernel.taps[torch.rand_like(kernel.taps) < 0.2] = 0.0
    expected = quantize_taps(kernel.taps, "pow2").detach()
    codes, largest = taps.pack(kernel)
    assert codes.dtype == torch.int8
    found = taps.unpack(codes, largest)
    assert torch.equal(found, expected)
    assert torch.equal(quantize_taps(found, "pow2"), expected)


def test_kernels_are_found_by_their_paths() -> None:
    net = torch.nn.Sequential(
        HistoryKernel("fir", decay=0.5, order=2, kernel_bits="pow2"),
        HistoryKernel("fir", decay=0.5, order=2, kernel_bits=4),
        HistoryKernel("exp", decay=0.5, order=2, kernel_bits="pow2"),
        torch.nn.ModuleList([HistoryKernel("fir", decay=0.5, order=3, kernel_bits="pow2")]),
    )
    assert list(taps.power_of_two_kernels(net)) == ["0", "3.0"]


@pytest.mark.parametrize(
    ("codes", "largest"),
    [
        (torch.tensor([9]), torch.tensor([0])),
        (torch.tensor([[1, 2]]), torch.tensor([0])),
        (torch.tensor(1), torch.tensor([0])),
    ],
)
def test_what_is_no_packed_kernel_is_refused(codes: torch.Tensor, largest: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="fit no kernel"):
        taps.unpack(codes.to(torch.int8), largest.to(torch.int16))
