"""Binary frames, eight pixels a byte."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.train.datasets.source import pack, unpack


@given(st.lists(st.integers(1, 5), min_size=3, max_size=3), st.integers(0, 3), st.integers(0, 2**31))
def test_bits_are_numpys_little_ones_and_come_back(shape: list[int], count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 2, (count, 2, *shape), generator=generator, dtype=torch.uint8)
    packed = pack(frames)
    expected = np.packbits(frames.flatten(2).numpy(), axis=-1, bitorder="little")
    assert np.array_equal(packed.numpy(), expected)
    unpacked = unpack(packed, tuple(shape))
    assert unpacked.dtype == torch.float32
    assert unpacked.is_contiguous()
    assert torch.equal(unpacked, frames.float())
