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
from tests.docs.browser import VIEWS, Visit, violations

ADDRESS = Path(__file__).parents[2].joinpath("docs", "interactive", "neuron.html").as_uri()
STEPS = 24
# what the sliders can be set to, in their own units: sixteenths for the first three
RANGES = {
    "decay": (0, 16),
    "threshold": (4, 32),
    "weight": (-32, 32),
    "inputs": (1, 3),
    "order": (1, 10),
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
        "bits": draw(st.integers(*RANGES["bits"])),
        "weights": draw(st.lists(sixteenths("weight"), min_size=inputs, max_size=inputs)),
        "spikes": draw(st.lists(train, min_size=inputs, max_size=inputs)),
    }


def synaptic_input(given: dict[str, Any]) -> torch.Tensor:
    """[T, 1], float64."""
    weights = torch.tensor(given["weights"], dtype=torch.float64)
    return (weights @ torch.tensor(given["spikes"], dtype=torch.float64)).unsqueeze(1)


@given(given=all_settings())
def test_the_memory_free_neuron_equals_functional_fire_bit_for_bit(
    shared: Page, given: dict[str, Any]
) -> None:
    found = shared.evaluate("given => neuronModel.memoryFree(given)", given)
    x, kernel = synaptic_input(given), Exponential(given["decay"], order=given["order"])
    assert found["potential"] == functional.potential(x, kernel).flatten().tolist()
    assert found["fired"] == functional.fire(x, kernel, given["threshold"]).flatten().tolist()


@given(given=all_settings())
def test_the_lif_equals_quantized_membrane_lif_bit_for_bit(shared: Page, given: dict[str, Any]) -> None:
    found = shared.evaluate("given => neuronModel.lif(given)", given)
    x = synaptic_input(given)
    lif = QuantizedMembraneLIF(given["decay"], bits=given["bits"], v_threshold=given["threshold"])
    with torch.no_grad():
        assert found["potential"] == lif.potential(x).flatten().tolist()
        assert found["fired"] == lif(x).flatten().tolist()
    assert found["scale"] == lif.scale.item()
    # what was kept is what the next potential holds beside its input
    codes = torch.tensor(found["codes"], dtype=torch.float64)
    held = (lif.potential(x) - x).flatten()[1:]
    assert torch.equal(given["decay"] * (codes * found["scale"])[:-1], held)
    assert len({*found["codes"]}) <= 2 ** given["bits"]


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


def test_small_inputs_are_rounded_away_until_the_lif_has_four_bits(page: Page) -> None:
    choose(page, "Small inputs")
    free, lif = fires(page)
    assert free and not lif
    choose(page, "Small inputs", bits=3)
    assert fires(page)[1] == []
    choose(page, "Small inputs", bits=4)
    assert fires(page)[1] != []


def test_three_bits_know_that_a_spike_came_but_not_when(page: Page) -> None:
    choose(page, "Was there a spike?")
    assert fires(page) == ([8], [])
    choose(page, "Was there a spike?", bits=3)
    assert fires(page) == ([8], [8])
    page.get_by_role("button", name="Input B, step 8").click()
    assert fires(page) == ([], [18])


def test_rounding_up_makes_the_rhythm_fire_too_often(page: Page) -> None:
    choose(page, "Rhythm")
    assert fires(page) == ([9, 21], [6, 9, 18, 21])
    choose(page, "Rhythm", bits=4)
    assert fires(page) == ([9, 21], [9, 21])


def test_the_rate_of_the_lif_follows_a_steady_input_where_the_other_fires_always(page: Page) -> None:
    rates = []
    for strength in (4, 6, 10, 14):
        choose(page, "Steady input", weight0=strength)
        free, lif = fires(page)
        assert free == list(range(free[0], STEPS))
        rates.append(len(lif))
    assert rates == sorted(rates) and len({*rates}) == len(rates)


def test_the_lif_counts_eight_spikes_that_no_register_on_the_page_spans(page: Page) -> None:
    choose(page, "Counting")
    assert fires(page) == ([], [21])
    choose(page, "Counting", order=10)
    assert fires(page)[0] == []


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


def test_it_plays_to_the_last_step_and_stops(page: Page) -> None:
    page.locator("#step").fill("21")
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#step-number")).to_have_text("23")
    expect(page.locator("#play")).to_have_text("Play")


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_it_fits_the_width_can_be_read_by_everyone_and_leads_back(
    visit: Visit, width: int, scheme: str
) -> None:
    page = visit(ADDRESS, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert violations(page) == []
    expect(page.get_by_role("link", name="mfp-neurons")).to_have_attribute("href", "../index.html")
