"""Samples made to fit a size."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.train.datasets.source import in_memory, pack, resize, unpack


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 6))
def test_a_smaller_image_is_in_the_middle_of_zeros(high: int, wide: int, more: int) -> None:
    size = max(high, wide) + more
    images = torch.randint(1, 256, (3, 1, high, wide), dtype=torch.uint8)
    fitted = resize(images, size, frames=False)
    assert fitted.shape == (3, 1, size, size)
    top, left = (size - high) // 2, (size - wide) // 2
    assert torch.equal(fitted[:, :, top : top + high, left : left + wide], images)
    assert (fitted != 0).sum() == images.numel()


@given(st.integers(1, 5), st.integers(1, 4))
def test_a_larger_image_is_pooled_to_means_and_stays_bytes(size: int, factor: int) -> None:
    images = torch.randint(0, 256, (2, 3, size * factor, size * factor), dtype=torch.uint8)
    fitted = resize(images, size, frames=False)
    blocks = images.unflatten(-1, (size, factor)).unflatten(-3, (size, factor)).double()
    assert fitted.dtype == torch.uint8
    assert torch.equal(fitted, blocks.mean((-3, -1)).float().round().byte())


@given(st.integers(1, 12), st.integers(1, 12))
def test_larger_frames_keep_the_largest_count_that_a_window_saw(side: int, size: int) -> None:
    frames = torch.randint(0, 2, (2, 4, 2, side, side), dtype=torch.uint8)
    fitted = resize(frames, size, frames=True)
    assert fitted.shape == (2, 4, 2, size, size)
    assert fitted.dtype == torch.uint8
    assert torch.equal(fitted.flatten(3).amax(-1), frames.flatten(3).amax(-1))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int16])
def test_size_0_leaves_samples_as_they_are(dtype: torch.dtype) -> None:
    images = torch.ones(2, 1, 5, 7, dtype=dtype)
    assert resize(images, 0, frames=False) is images


def test_the_scale_of_samples_is_their_largest_value_and_never_zero() -> None:
    labels = torch.zeros(2, dtype=torch.int64)
    assert in_memory(torch.tensor([[3.0], [16.0]]), labels).scale == 16
    assert in_memory(torch.zeros(2, 1), labels).scale == 1


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
