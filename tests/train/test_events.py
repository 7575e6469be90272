"""The simulated event camera: what it sends follows from what it sees, and from nothing else."""

import hashlib
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mfp_neurons.train import events
from mfp_neurons.train.events import DURATION, LOG_UNIT, Camera

SMALL = Camera(size=12, reach=2)


def picture(seed: int, side: int = 8) -> Tensor:
    """Noise in blocks of two pixels: edges of every contrast."""
    blocks = torch.randint(0, 256, (side // 2, side // 2), generator=torch.Generator().manual_seed(seed))
    return blocks.repeat_interleave(2, 0).repeat_interleave(2, 1).to(torch.uint8)


pictures = st.integers(0, 2**32 - 1).map(picture)


def signed(found: events.Events, camera: Camera, *, before: int = DURATION) -> Tensor:
    """Thresholds that every pixel's memory has moved by, float64 [2, size, size]: down, up."""
    moved = torch.zeros(2, camera.size, camera.size, dtype=torch.float64)
    early = found.t < before
    moved.index_put_(
        (found.p[early], found.y[early], found.x[early]), torch.ones(1).double(), accumulate=True
    )
    return moved * camera.thresholds() / LOG_UNIT


@given(pictures, st.integers(0, 255))
def test_a_still_image_and_the_inside_of_an_even_surface_make_no_event(image: Tensor, level: int) -> None:
    still = Camera(size=12, reach=0)
    assert events.frames(image.unsqueeze(0), 4, still).sum() == 0
    assert len(events.events(image, 4, still).t) == 0
    flat = torch.full((1, 12, 12), level, dtype=torch.uint8)
    assert events.frames(flat, 4, SMALL)[..., 4:8, 4:8].sum() == 0


@given(pictures, st.integers(1, 20))
def test_frames_are_the_events_of_equal_parts_of_the_time(image: Tensor, time_steps: int) -> None:
    found = events.events(image, time_steps, SMALL)
    binned = torch.zeros(time_steps, 2, 12, 12, dtype=torch.uint8)
    assert (found.t.diff() >= 0).all()
    binned[found.t * time_steps // DURATION, found.p, found.y, found.x] = 1
    assert torch.equal(binned, events.frames(image.unsqueeze(0), time_steps, SMALL)[0])


def seen_by_hand(image: Tensor, moment: float, camera: Camera) -> Tensor:
    """Luminance at every pixel: the image moved by sixteenths of a pixel, by grid_sample."""
    x, y = (round(16 * camera.reach * (1 - way)) / 16 - camera.reach for way in events.position(moment))
    plane = torch.zeros(1, 1, camera.size, camera.size, dtype=torch.float64)
    edge = (camera.size - len(image)) // 2
    plane[0, 0, edge : edge + len(image), edge : edge + len(image)] = image
    ticks = torch.arange(camera.size, dtype=torch.float64)
    rows, columns = torch.meshgrid(ticks + y, ticks + x, indexing="ij")
    grid = torch.stack([columns, rows], -1) * 2 / (camera.size - 1) - 1
    level = torch.nn.functional.grid_sample(plane, grid.unsqueeze(0), align_corners=True)[0, 0]
    return camera.black + (camera.white - camera.black) * level / 255


@given(pictures, st.integers(1, 48))
def test_what_a_pixel_has_sent_follows_the_logarithm_of_what_it_sees(image: Tensor, after: int) -> None:
    found = events.events(image, 48, SMALL)
    off, on = signed(found, SMALL, before=-(-after * DURATION // 48))
    now, first = (seen_by_hand(image, moment, SMALL).log() for moment in (after / 48, 0.0))
    behind = (now - first) - (on - off)
    slack = 2 / LOG_UNIT  # both logarithms are rounded
    low, high = SMALL.thresholds() / LOG_UNIT + slack
    assert ((behind < high) & (behind > -low)).all()


@pytest.mark.parametrize("rising", [True, False])
@given(ratio=st.floats(2, 1000), threshold=st.floats(0.05, 0.5))
def test_an_edge_that_passes_sends_its_contrast_in_thresholds_and_with_its_sign(
    rising: bool, ratio: float, threshold: float
) -> None:
    camera = Camera(size=20, reach=4, black=1 / ratio, white=1.0, threshold=threshold, mismatch=0.0)
    image = torch.zeros(20, 20, dtype=torch.uint8)
    image[:, 10:] = 255  # the third saccade takes it to the left: what was black turns white
    if not rising:
        image = 255 - image
    found = events.events(image, 3, camera)
    passed = (found.t >= 200_000) & (found.x == 9) & (found.y == 10)
    assert (found.p[passed] == int(rising)).all()
    step = round(threshold * LOG_UNIT) / LOG_UNIT
    assert abs(passed.sum() * step - math.log(ratio)) < step + 1 / LOG_UNIT


@given(pictures, st.integers(-20, 20))
def test_the_same_scene_in_more_light_makes_the_same_events(image: Tensor, doublings: int) -> None:
    light = 2.0**doublings
    lit = Camera(size=12, reach=2, black=SMALL.black * light, white=SMALL.white * light)
    for here, there in zip(events.events(image, 8, SMALL), events.events(image, 8, lit), strict=True):
        assert torch.equal(here, there)


def test_images_do_not_see_each_other() -> None:
    images = torch.stack([picture(seed) for seed in range(events.BATCH + 3)])
    together = events.frames(images, 3, SMALL)
    for number in (0, events.BATCH - 1, events.BATCH, events.BATCH + 2):
        assert torch.equal(together[number], events.frames(images[number : number + 1], 3, SMALL)[0])


def test_one_seed_is_one_camera_on_every_machine() -> None:
    image = (torch.arange(28 * 28, dtype=torch.int64).reshape(1, 28, 28) * 37 % 256).to(torch.uint8)
    seen = events.frames(image, 16)
    digest = hashlib.sha256(seen.numpy().tobytes()).hexdigest()
    assert digest == "304bc8ff700f482658ce36fade6af50f29c085e82b6854405b4c3a9266827c8c"
    assert torch.equal(seen, events.frames(image, 16, Camera(seed=0)))
    assert not torch.equal(seen, events.frames(image, 16, Camera(seed=1)))


def test_thresholds_spread_as_asked() -> None:
    thresholds = Camera(size=200, threshold=0.5, mismatch=0.1).thresholds() / LOG_UNIT
    assert float(thresholds.mean()) == pytest.approx(0.5, rel=0.01)
    assert float(thresholds.std()) == pytest.approx(0.05, rel=0.02)
    assert Camera(mismatch=0.9).thresholds().min() > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 0}, "size"),
        ({"reach": -1}, "reach"),
        ({"black": 0.0}, "black and white"),
        ({"black": 2.0}, "black and white"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"mismatch": 1.0}, "mismatch"),
    ],
)
def test_a_camera_that_cannot_see_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Camera(**settings)


@pytest.mark.parametrize(
    ("images", "time_steps", "error", "words"),
    [
        (torch.zeros(1, 8, 8), 4, TypeError, r"uint8 \[N, H, W\]"),
        (torch.zeros(8, 8).byte(), 4, TypeError, r"uint8 \[N, H, W\]"),
        (torch.zeros(1, 1, 8, 8).byte(), 4, TypeError, r"uint8 \[N, H, W\]"),
        (torch.zeros(1, 35, 8).byte(), 4, ValueError, "35 x 8 do not fit into a camera of size 34"),
        (torch.zeros(1, 8, 8).byte(), 0, ValueError, "time_steps"),
    ],
)
def test_what_is_no_image_that_the_camera_holds_is_refused(
    images: Tensor, time_steps: int, error: type[Exception], words: str
) -> None:
    assert events.frames(torch.zeros(0, 28, 28, dtype=torch.uint8), 16).shape == (0, 16, 2, 34, 34)
    with pytest.raises(error, match=words):
        events.frames(images, time_steps)
