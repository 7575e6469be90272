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
    assert (data.features, data.steps) == ((12,), 12)


@pytest.mark.parametrize(
    ("reading", "shape", "steps", "features"),
    [
        ("rows", (2, 4, 6), 4, (12,)),
        ("repeat", (1, 4, 4), 3, (1, 4, 4)),
        ("frames", (7, 2, 4, 4), 7, (2, 4, 4)),
    ],
)
def test_a_reading_says_what_a_step_is(
    reading: str, shape: tuple[int, ...], steps: int, features: tuple[int, ...]
) -> None:
    samples = 2 * torch.rand(5, *shape)  # float32 already, so what is read must be a copy
    before = samples.clone()
    split = Split(samples, torch.zeros(5, dtype=torch.int64))
    data = Data(split, split, split, 10, reading, 3, scale=2.0)
    sequence = data.sequence(samples)
    expected = {
        "rows": lambda: samples.permute(2, 0, 1, 3).flatten(2),  # channels lie side by side
        "repeat": lambda: torch.stack([samples] * 3),
        "frames": lambda: samples.transpose(0, 1),
    }[reading]() / 2
    assert torch.equal(sequence, expected)
    assert (data.steps, data.features) == (steps, features)
    assert torch.equal(samples, before)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "mnist"}, r"data\.name"),
        ({"name": "torchvision:"}, r"data\.name"),
        ({"name": "nonsense:MNIST"}, r"data\.name"),
        ({"validation": 5000}, r"data.validation = 5000: the training split has 1433 samples"),
        ({"reading": "frames"}, r"data.reading = 'frames'.*frames need \[T, C, H, W\]"),
    ],
    ids=str,
)
def test_what_is_no_data_set_or_does_not_fit_it_is_refused(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(DataConfig(**{"name": "digits", **settings}))


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
