"""The page with two neurons: its numbers are Python's, its controls work, what its texts say is so."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Page, expect

from mfp_neurons import functional
from mfp_neurons.baseline import QuantizedMembraneLIF
from mfp_neurons.history import Exponential
from tests.docs.browser import Visit

ADDRESS = Path(__file__).parents[2].joinpath("docs", "interactive", "neuron.html").as_uri()
STEPS = 24
# what the sliders can be set to, in their own units: sixteenths for the first three
RANGES = {
    "decay": (0, 16),
    "threshold": (4, 32),
    "weight": (-32, 32),
    "inputs": (1, 3),
    "order": (1, 10),
    "ownOrder": (0, 10),
    "ownWeight": (-32, 32),
    "bits": (1, 8),
}


@pytest.fixture(scope="module")
def shared(visit: Visit) -> Page:
    """For tests that only call the page's functions."""
    return visit(ADDRESS, tab="shared")


@pytest.fixture
def page(visit: Visit) -> Page:
    return visit(ADDRESS)


def sixteenths(name: str) -> st.SearchStrategy[float]:
    return st.integers(*RANGES[name]).map(lambda n: n / 16)


@st.composite
def all_settings(draw: st.DrawFn) -> dict[str, Any]:
    inputs = draw(st.integers(*RANGES["inputs"]))
    train = st.lists(st.integers(0, 1), min_size=STEPS, max_size=STEPS)
    return {
        "decay": draw(sixteenths("decay")),
        "threshold": draw(sixteenths("threshold")),
        "order": draw(st.integers(*RANGES["order"])),
        "ownOrder": draw(st.integers(*RANGES["ownOrder"])),
        "ownWeight": draw(sixteenths("ownWeight")),
        "bits": draw(st.integers(*RANGES["bits"])),
        "weights": draw(st.lists(sixteenths("weight"), min_size=inputs, max_size=inputs)),
        "spikes": draw(st.lists(train, min_size=inputs, max_size=inputs)),
    }


def synaptic_input(settings: dict[str, Any]) -> torch.Tensor:
    """[T, 1], float64."""
    weights = torch.tensor(settings["weights"], dtype=torch.float64)
    return (weights @ torch.tensor(settings["spikes"], dtype=torch.float64)).unsqueeze(1)


@given(settings=all_settings())
def test_both_neurons_equal_pythons_bit_for_bit(shared: Page, settings: dict[str, Any]) -> None:
    x, kernel = synaptic_input(settings), Exponential(settings["decay"], order=settings["order"])
    free = shared.evaluate("settings => neuronModel.memoryFree(settings)", settings)
    own: dict[str, Any] = {}
    if settings["ownOrder"]:
        fading = settings["decay"] ** torch.arange(settings["ownOrder"], dtype=torch.float64)
        own = {"reset": "feedback", "reset_taps": settings["ownWeight"] * fading}
    chunk = functional.fire_chunk(x, kernel, settings["threshold"], record=True, **own)
    assert free["potential"] == chunk.potential.flatten().tolist()
    assert free["fired"] == chunk.spikes.flatten().tolist()

    lif = QuantizedMembraneLIF(settings["decay"], bits=settings["bits"], v_threshold=settings["threshold"])
    page = shared.evaluate("settings => neuronModel.lif(settings)", settings)
    with torch.no_grad():
        assert page["potential"] == lif.potential(x).flatten().tolist()
        assert page["fired"] == lif(x).flatten().tolist()
    assert page["scale"] == lif.scale.item()
    # what was kept is what the next potential holds beside its input
    codes = torch.tensor(page["codes"], dtype=torch.float64)
    held = (lif.potential(x) - x).flatten()[1:]
    assert torch.equal(settings["decay"] * (codes * page["scale"])[:-1], held)
    assert len({*page["codes"]}) <= 2 ** settings["bits"]


def test_the_sliders_go_where_the_comparison_went(shared: Page) -> None:
    sliders = shared.locator(".slider input").evaluate_all(
        "all => all.map(s => [s.id, +s.min, +s.max, +s.step])"
    )
    assert {name.rstrip("012"): (least, most) for name, least, most, _ in sliders} == RANGES
    assert {step for *_, step in sliders} == {1}


def fires(page: Page) -> tuple[list[int], list[int]]:
    """Steps at which the memory-free neuron and the LIF fire, as the pictures' descriptions say."""
    labels = page.locator(".neuron svg").evaluate_all("all => all.map(svg => svg.getAttribute('aria-label'))")
    free, lif = (
        [int(t) for t in label.split("steps ")[1].split(". ")[0].split(", ")] if "at steps" in label else []
        for label in labels
    )
    return free, lif


def choose(page: Page, scene: str, **sliders: int) -> None:
    page.get_by_role("button", name=scene).click()
    for name, value in sliders.items():
        page.locator(f"#{name}").fill(str(value))


@pytest.mark.parametrize(
    ("scene", "sliders", "free", "lif"),
    [  # small inputs are rounded away until the LIF has four bits
        ("Small inputs", {}, [7, 8, 9, 10, 21, 22], []),
        ("Small inputs", {"bits": 3}, [7, 8, 9, 10, 21, 22], []),
        ("Small inputs", {"bits": 4}, [7, 8, 9, 10, 21, 22], [7, 20]),
        # rounding up makes it fire too often
        ("Rhythm", {}, [9, 21], [6, 9, 18, 21]),
        ("Rhythm", {"bits": 4}, [9, 21], [9, 21]),
        # it counts eight spikes, which no register on the page spans
        ("Counting", {}, [], [21]),
        ("Counting", {"order": 10}, [], [21]),
        # its rate follows a steady input, where the other fires always
        ("Steady input", {"weight0": 4}, list(range(5, 24)), [4, 9, 14, 19]),
        ("Steady input", {"weight0": 6}, list(range(3, 24)), [3, 6, 9, 12, 16, 19, 22]),
        # own spikes are the reset, as long as they reach back
        ("The same, with feedback", {}, list(range(3, 24, 4)), list(range(3, 24, 4))),
        ("The same, with feedback", {"ownWeight": 0}, list(range(3, 24)), list(range(3, 24, 4))),
        # one bit holds until it is switched off
        ("A latch", {}, list(range(2, 17)), [2]),
        ("A latch", {"ownWeight": 0}, [2], [2]),
    ],
)
def test_what_the_scenes_say_is_so(
    page: Page, scene: str, sliders: dict[str, int], free: list[int], lif: list[int]
) -> None:
    choose(page, scene, **sliders)
    assert fires(page) == (free, lif)


def test_three_bits_know_that_a_spike_came_but_not_when(page: Page) -> None:
    choose(page, "Was there a spike?")
    assert fires(page) == ([8], [])
    choose(page, "Was there a spike?", bits=3)
    assert fires(page) == ([8], [8])
    page.get_by_role("button", name="Input B, step 8").click()
    assert fires(page) == ([], [18])


def test_a_step_shows_the_numbers_of_the_model(page: Page) -> None:
    choose(page, "Was there a spike?")
    x, kernel = torch.zeros(STEPS, 1, dtype=torch.float64), Exponential(15 / 16, order=8)
    x[2], x[8], x[18] = 0.75, 0.5, 0.5
    expect(page.locator("#step")).to_have_value("8")
    expect(page.locator("#free-look")).to_contain_text(
        f"= {functional.potential(x, kernel)[8].item():.4f} ≥ θ: fires"
    )
    expect(page.locator("#lif-look")).to_contain_text("Clipped to the highest code")


def test_input_can_be_given_with_the_keyboard_alone(page: Page) -> None:
    page.get_by_role("button", name="No spikes").click()
    page.locator(".cell[tabindex='0']").first.focus()
    for key in ("ArrowRight", "ArrowRight", " ", "ArrowDown", "Enter", "End", " "):
        page.keyboard.press(key)
    pressed = page.locator(".cell[aria-pressed='true']").evaluate_all(
        "all => all.map(cell => cell.ariaLabel)"
    )
    assert pressed == ["Input A, step 2", "Input B, step 2", "Input B, step 23"]


def test_it_tells_for_how_long_each_neuron_remembers_the_followed_spike(page: Page) -> None:
    choose(page, "Was there a spike?")
    told = page.locator("#remembered")
    expect(told).to_contain_text("keeps it for 7 steps, to the bit")
    expect(told).to_contain_text("for 6 steps, and from step 8 on is the same as if it had not come")
    page.locator("#order").press("ArrowLeft")
    expect(told).to_contain_text("keeps it for 6 steps")


def test_it_tells_for_how_long_own_spikes_tell_of_the_followed_spike(page: Page) -> None:
    choose(page, "A latch")
    told = page.locator("#remembered")
    expect(told).to_contain_text("the memory-free neuron's own spikes tell of it for 15 steps")
    page.locator("#ownWeight").fill("0")
    expect(told).to_contain_text("own spikes tell of it for 1 step;")
    page.locator("#ownOrder").fill("0")
    expect(told).to_contain_text("the memory-free neuron keeps nothing of it")


def test_it_plays_to_the_last_step_and_stops(page: Page) -> None:
    page.locator("#step").fill("21")
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#step-number")).to_have_text("23")
    expect(page.locator("#play")).to_have_text("Play")
