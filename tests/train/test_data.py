"""Data sets: found where the user has them, split once and for all, and turned into sequences."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.data import Data, Split, load, vary


def test_digits_are_scikit_learns_each_once_and_every_class_in_every_split() -> None:
    data = load(DataConfig(name="digits"))
    splits = (data.train, data.validation, data.test)
    assert sum(map(len, splits)) == 1797
    assert all(set(s.labels.tolist()) == set(range(10)) for s in splits)
    assert torch.equal(data.test.labels.bincount(), torch.tensor([36, 37, 36, 37, 37, 37, 37, 36, 35, 36]))


def test_the_validation_split_is_the_same_every_time_and_apart_from_training() -> None:
    first, again = (load(DataConfig(name="digits", validation=100, limit=n)) for n in (0, 50))
    assert torch.equal(first.validation.samples, again.validation.samples)
    assert torch.equal(first.train.samples[:50], again.train.samples)
    assert len(again.train) == 50


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.validation = 5000: the training split has 1433 samples"):
        load(DataConfig(name="digits", validation=5000))


def test_a_choice_of_test_samples_is_the_same_every_time_and_in_their_own_order() -> None:
    whole = load(DataConfig(name="digits")).test
    some = load(DataConfig(name="digits", test_limit=40)).test
    more = load(DataConfig(name="digits", test_limit=90)).test
    assert (len(some), len(more)) == (40, 90)
    found = [int((whole.samples == sample).flatten(1).all(1).nonzero()[0]) for sample in some.samples]
    assert found == sorted(found)
    assert all((more.samples == sample).flatten(1).all(1).any() for sample in some.samples)


def test_size_makes_images_fit() -> None:
    data = load(DataConfig(name="digits", size=12))
    assert data.features == (12,)
    assert data.steps == 12


def make(samples: torch.Tensor, reading: str, time_steps: int = 3) -> Data:
    split = Split(samples, torch.zeros(len(samples), dtype=torch.int64))
    return Data(split, split, split, 10, reading, time_steps, scale=2.0)


def test_rows_are_steps_and_channels_lie_side_by_side() -> None:
    samples = torch.randint(0, 3, (5, 2, 4, 6), dtype=torch.uint8)  # n, C, H, W
    data = make(samples, "rows")
    sequence = data.sequence(samples)
    assert sequence.shape == (4, 5, 12)
    assert (data.steps, data.features) == (4, (12,))
    for t in range(4):
        assert torch.equal(sequence[t, :, 6:], samples[:, 1, t].float() / 2)


def test_a_repeated_image_is_the_same_at_every_step() -> None:
    samples = torch.rand(5, 1, 4, 4)
    data = make(samples, "repeat")
    assert torch.equal(data.sequence(samples), torch.stack([samples / 2] * 3))
    assert (data.steps, data.features) == (3, (1, 4, 4))


def test_frames_bring_their_own_time() -> None:
    samples = torch.rand(5, 7, 2, 4, 4)
    data = make(samples, "frames")
    assert torch.equal(data.sequence(samples), samples.transpose(0, 1) / 2)
    assert (data.steps, data.features) == (7, (2, 4, 4))


def test_reading_samples_in_place_of_a_copy_never_changes_them() -> None:
    samples = torch.rand(5, 1, 4, 4)  # float32 already: `to` makes no copy
    before = samples.clone()
    make(samples, "rows").sequence(samples)
    assert torch.equal(samples, before)


@pytest.mark.parametrize("name", ["mnist", "torchvision:", "torchvision:NoSuchSet", "nonsense:MNIST"])
def test_an_unknown_data_set_is_refused(name: str) -> None:
    if name.startswith("torchvision:N"):
        pytest.importorskip("torchvision")
    with pytest.raises(ConfigError, match=r"data\.name"):
        load(DataConfig(name=name))


def test_a_reading_that_does_not_fit_the_samples_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.reading = 'frames'.*frames need \[T, C, H, W\]"):
        load(DataConfig(name="digits", reading="frames"))


# --- images moved and mirrored: nothing but what could have been seen, every choice as likely ---------------


def moved(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """One image [C, H, W] moved with zeros coming in, pixel by pixel."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                out[:, y, x] = image[:, y - down, x - right]
    return out


@given(
    st.integers(0, 2),
    st.booleans(),
    st.integers(1, 2),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_every_image_comes_out_moved_and_mirrored_in_one_of_the_possible_ways(
    shift: int, flip: bool, channels: int, height: int, width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    images = torch.randint(0, 256, (3, channels, height, width), dtype=torch.uint8)
    made = vary(images, shift, flip)
    assert made.dtype == images.dtype and made.shape == images.shape
    reach = range(-shift, shift + 1)
    for image, found in zip(images, made, strict=True):
        seen = [moved(image, down, right) for down in reach for right in reach]
        seen += [one.flip(-1) for one in seen] if flip else []
        assert any(torch.equal(found, one) for one in seen)


def test_every_way_occurs() -> None:
    torch.manual_seed(0)
    images = torch.arange(1, 10).reshape(1, 1, 3, 3).expand(2000, 1, 3, 3)
    assert len(vary(images, 1, True).flatten(1).unique(dim=0)) == 18
    assert len(vary(images, 1, False).flatten(1).unique(dim=0)) == 9
