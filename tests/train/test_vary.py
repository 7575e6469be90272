"""Moved and mirrored images: nothing but what could have been seen, every choice as likely."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.train import config, data
from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.data import vary
from mfp_neurons.train.engine import Trainer, squared_distance


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


def test_only_repeated_images_are_moved(tmp_path) -> None:
    settings = config.load("digits-mfp", {"training.shift": 1})
    with pytest.raises(ConfigError, match=r"training.shift = 1.*'rows'"):
        Trainer(settings, tmp_path, data.load(DataConfig("digits")), bars=False)


def test_squared_distance_is_that_from_one_hot_labels() -> None:
    scores = torch.tensor([[0.5, 0.0, 1.0], [0.0, 1.0, 0.0]])
    expected = ((0.5 - 1) ** 2 + 0 + 1) / 6
    assert squared_distance(scores, torch.tensor([0, 1])).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "settings", [{"training.loss": "mse"}, {"training.shift": 2, "training.flip": True}], ids=str
)
def test_a_run_with_it_trains_and_is_repeatable(tmp_path, settings: dict) -> None:
    overrides = {
        "data.reading": "repeat",
        "data.limit": 200,
        "network.hidden": [16],
        "network.neuron.order": 2,
        "training.epochs": 2,
        "training.seed": 3,
        **settings,
    }
    chosen = config.load("digits-mfp", overrides)
    loaded = data.load(chosen.data)
    runs = [Trainer(chosen, tmp_path / str(i), loaded, bars=False).run() for i in range(2)]
    assert runs[0]["history"] == runs[1]["history"]
    assert runs[0]["history"][1]["loss"] < runs[0]["history"][0]["loss"]
