"""The page that reads digits: its network is the one in Python, drawings become pictures like its data."""

import importlib.util
import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Page, expect

from mfp_neurons import zoo
from mfp_neurons.zoo.evaluation import load_test
from tests.deploy.toolchain import tool
from tests.docs.browser import Visit
from tests.docs.drawings import Stroke, drawings

PAGES = Path(__file__).parents[2] / "docs" / "interactive"
ADDRESS = PAGES.joinpath("digits.html").as_uri()
REMEDY = "run `python docs/interactive/build.py`"
DRAWINGS = drawings()

_spec = importlib.util.spec_from_file_location("build_digits", PAGES / "build.py")  # no package, a script
assert _spec is not None and _spec.loader is not None
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

trained = cache(lambda: zoo.load(build.NETWORK))


@cache
def labeled_images() -> tuple[np.ndarray, np.ndarray]:
    """Levels [N, 8, 8] and digits [N]."""
    test = load_test(trained()).test
    return test.samples.reshape(-1, 8, 8).numpy(), test.labels.numpy()


@pytest.fixture(scope="module")
def shared(visit: Visit) -> Page:
    """For tests that only call the page's functions."""
    page = visit(ADDRESS, tab="shared")
    page.evaluate("network.ready")
    return page


@pytest.fixture
def page(visit: Visit) -> Page:
    page = visit(ADDRESS)
    page.evaluate("network.ready")
    return page


# ---- the network ----


@pytest.fixture(scope="module")
def answers(shared: Page) -> list[dict[str, Any]]:
    """What the page makes of every test image, all rows at once and row by row."""
    levels, _ = labeled_images()
    call = """all => all.map(levels => {
        const text = spikes => spikes.flat(2).join("");  // millions of numbers, shorter
        const run = network.run(levels), stream = network.stream(levels);
        const rows = stream.map(row => ({...row, spikes: row.spikes.map(text)}));
        return {run: {...run, spikes: run.spikes.map(text)}, stream: rows};
    })"""
    return shared.evaluate(call, levels.tolist())


def test_scores_and_answers_equal_pythons_on_the_whole_test_set(answers: list[dict[str, Any]]) -> None:
    levels, digits = labeled_images()
    network, x = trained().network, levels.transpose(1, 0, 2)  # [T, N, features]
    scores = network.run(x) / network.graph.scores.unit
    assert len(answers) == len(digits) == trained().card.accuracy.images
    assert np.array_equal([a["run"]["scores"] for a in answers], scores)
    page = np.array([a["run"]["answer"] for a in answers])
    assert np.array_equal(page, scores.argmax(1))
    assert 100 * (page == digits).mean() == pytest.approx(trained().card.accuracy.integer)
    stream = network.stream()
    for row, x_row in enumerate(x):
        scores = stream.step(x_row) / network.graph.scores.unit
        assert np.array_equal([a["stream"][row]["scores"] for a in answers], scores)
        assert np.array_equal([a["stream"][row]["answer"] for a in answers], scores.argmax(1))


def test_the_spikes_of_every_layer_equal_pythons(answers: list[dict[str, Any]]) -> None:
    levels, _ = labeled_images()
    of_layers = trained().network.run_events(levels.transpose(1, 0, 2)).spikes.values()
    assert len(of_layers) == 3
    for layer, events in enumerate(of_layers):
        spikes = np.zeros((len(levels), 8, 128), np.uint8)  # [N, T, neurons]
        spikes[events.sample, events.time, events.channel] = 1
        expected = ["".join(map(str, sample.flatten())) for sample in spikes]
        assert [a["run"]["spikes"][layer] for a in answers] == expected
        assert ["".join(row["spikes"][layer] for row in a["stream"]) for a in answers] == expected


def generated() -> dict[str, Any]:
    """What digits_network.js holds."""
    text = build.GENERATED.read_text()
    return json.loads(text[text.index("= {") + 2 : text.rindex(";")])


def test_what_the_page_says_of_the_network_is_so() -> None:
    facts, card = generated(), trained().card
    assert facts["examples"] == build.examples(trained()), REMEDY
    assert {key: facts[key] for key in ("steps", "unit", "layers")} == build.describe(
        trained().network.graph
    ), REMEDY
    assert (facts["accuracy"], facts["images"]) == (card.accuracy.integer, card.accuracy.images), REMEDY
    assert facts["stateBits"] == card.state_bits == 8 * trained().network.memory().state_stream, REMEDY


def test_the_same_compiler_makes_the_same_bytes() -> None:
    for name in ("clang", "wasm-ld"):
        tool(name)
    if generated()["compiler"] != build.compiler():
        pytest.skip(f"it was made by {generated()['compiler']}, here is {build.compiler()}")
    assert build.generate() == build.GENERATED.read_text(), REMEDY


def test_another_compiler_makes_a_network_with_the_same_scores(shared: Page, tmp_path: Path) -> None:
    """Without optimization: nothing rests on what one compiler made of the C."""
    tool("wasm-ld")
    build.write_sources(trained(), tmp_path)
    options = [option.replace("-Os", "-O0") for option in build.COMPILE]
    words = f"-DSPIKE_WORDS={build.spike_words(trained().network.graph)}"
    command = [tool("clang"), *options[1:], words, *build.SOURCES, *build.LINK, "-o", "digits.wasm"]
    subprocess.run(command, cwd=tmp_path, check=True)
    levels, _ = labeled_images()
    call = """async ([bytes, all]) => {
        const device = (await WebAssembly.instantiate(new Uint8Array(bytes))).instance.exports;
        return all.map(levels => {
            new Uint8Array(device.memory.buffer, device.input(), 64).set(levels.flat());
            device.run();
            return Array.from(new BigInt64Array(device.memory.buffer, device.scores(), 10), Number);
        });
    }"""
    scores = shared.evaluate(call, [list((tmp_path / "digits.wasm").read_bytes()), levels.tolist()])
    unit = trained().network.graph.scores.unit
    assert np.array_equal(scores, trained().network.run(levels.transpose(1, 0, 2)) / unit)


def test_it_is_small_and_asks_for_nothing(shared: Page) -> None:
    assert shared.evaluate("network.bytes") < 24 * 1024
    compiled = "Uint8Array.from(atob(digitsNetwork.wasm), c => c.charCodeAt(0))"
    assert shared.evaluate(f"WebAssembly.compile({compiled}).then(WebAssembly.Module.imports)") == []


# ---- from a drawing to a picture ----


def read(page: Page, drawn: list[list[Stroke]]) -> list[dict[str, Any]]:
    return page.evaluate("all => all.map(strokes => drawing.read(strokes))", drawn)


def moved(
    drawn: list[Stroke],
    *,
    scale: float = 1,
    aspect: float = 1,
    slant: float = 0,
    to: tuple[float, float] = (0, 0),
) -> list[Stroke]:
    return [
        [(to[0] + scale * aspect * (x - slant * y), to[1] + scale * y) for x, y in stroke] for stroke in drawn
    ]


def test_levels_are_the_ink_of_blocks_and_lie_like_the_data_set(shared: Page) -> None:
    pictures = read(shared, [drawn for _, drawn in DRAWINGS])
    bitmaps = np.array([picture["bitmap"] for picture in pictures])
    levels = np.array([picture["levels"] for picture in pictures])
    assert bitmaps.shape[1:] == (32, 32)
    assert np.array_equal(bitmaps.reshape(-1, 8, 4, 8, 4).sum((2, 4)), levels)
    data, _ = labeled_images()
    ink = data.sum((1, 2))
    assert abs(levels.sum((1, 2)).mean() - ink.mean()) < ink.std()
    for pictures_of in (levels, data):  # all as high as can be, and in the six columns of the middle
        assert (pictures_of[:, [0, 7]].sum(2) > 0).all()
        assert pictures_of[:, :, 1:7].sum() > 0.98 * pictures_of.sum()


def test_the_left_ends_of_first_and_last_row_stand_above_each_other(shared: Page) -> None:
    bitmaps = np.array([picture["bitmap"] for picture in read(shared, [drawn for _, drawn in DRAWINGS])])
    ends = bitmaps[:, [0, 31]].argmax(2)
    assert np.abs(ends[:, 0] - ends[:, 1]).max() <= 1
    # and so it is in the data set, up to what 4 x 4 blocks tell
    data, _ = labeled_images()
    first = (data[:, [0, 7]] > 0).argmax(2)
    inked = np.take_along_axis(data[:, [0, 7]], first[..., None], 2)[..., 0]
    left = first + 1 - inked / 16
    assert abs((left[:, 0] - left[:, 1]).mean()) < 0.05
    assert (left[:, 0] - left[:, 1]).std() < 0.3


@given(
    which=st.integers(0, len(DRAWINGS) - 1),
    scale=st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    to=st.tuples(st.integers(-200, 200), st.integers(-200, 200)),
)
def test_size_and_place_do_not_matter(shared: Page, which: int, scale: float, to: tuple[int, int]) -> None:
    drawn = [[(round(4 * x) / 4, round(4 * y) / 4) for x, y in stroke] for stroke in DRAWINGS[which][1]]
    here, there = read(shared, [drawn, moved(drawn, scale=scale, to=to)])
    assert (
        np.abs(np.array(here["bitmap"]).astype(int) - there["bitmap"]).sum() <= 4
    )  # a pixel at an edge may round


def test_an_empty_paper_is_no_picture_and_a_dot_is_one(shared: Page) -> None:
    assert read(shared, [[]]) == [None]
    assert np.array(read(shared, [[[(5.0, 5.0)]]])[0]["levels"]).sum() > 0


def test_it_reads_digits_drawn_by_hand_under_slants_and_proportions(shared: Page) -> None:
    rng = np.random.default_rng(0)
    drawn, digits = [], []
    for digit, hand in DRAWINGS:
        for _ in range(10):
            drawn.append(moved(hand, slant=rng.uniform(-0.3, 0.3), aspect=rng.uniform(0.7, 1.2)))
            digits.append(digit)
    call = "all => all.map(strokes => network.run(drawing.read(strokes).levels).answer)"
    right = np.equal(shared.evaluate(call, drawn), digits)
    assert right.mean() >= 0.93, f"{right.mean():.1%}"


# ---- the page ----


def draw(page: Page, drawn: list[Stroke]) -> None:
    """With the mouse, in the middle of the paper."""
    box = page.locator("#paper").bounding_box()
    assert box is not None
    for stroke in moved(
        drawn, scale=box["width"] / 200, to=(box["x"] + box["width"] / 4, box["y"] + box["height"] / 7)
    ):
        page.mouse.move(*stroke[0])
        page.mouse.down()
        for point in stroke[1:]:
            page.mouse.move(*point)
        page.mouse.up()


def rows(page: Page) -> int:
    return page.evaluate("document.querySelectorAll('#layers .raster-row').length")


def test_a_visit_from_the_digit_that_it_opens_with_to_one_of_the_test_set(page: Page) -> None:
    answer, when = page.locator("#answer"), page.locator("#when")
    expect(answer).to_contain_text("The test set says")
    assert rows(page) == 3 * 8
    seven = DRAWINGS[7 * 3 + 1][1]
    draw(page, seven)  # in the place of what was there
    expect(answer).to_contain_text("It reads a 7.")
    expect(page.locator("#paper path")).to_have_count(len(seven))
    expect(when).to_have_text("after row 8")  # played to the end
    page.locator("#step").fill("3")
    expect(when).to_have_text("after row 3")
    assert rows(page) == 3 * 3
    assert page.locator("#scores li").count() == 10
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#paper path")).to_have_count(len(seven) - 1)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#digit")).to_have_text("?")
    page.get_by_role("button", name="Show me one").click()
    expect(answer).to_contain_text("The test set says")
    draw(page, DRAWINGS[3][1])
    expect(answer).to_contain_text("It reads a 1.")


def test_a_digit_can_be_drawn_with_the_keyboard_alone(page: Page) -> None:
    page.locator("#paper").focus()
    page.keyboard.press(" ")
    for key in ["ArrowDown"] * 24 + [" "]:
        page.keyboard.press(key)
    expect(page.locator("#answer")).to_contain_text("It reads a 1.")
