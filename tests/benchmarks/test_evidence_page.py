"""The page of the evidence says what the committed results say: tables, comparisons, frontiers, words."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evidence import answers, draw, page
from benchmarks.evidence.__main__ import RESULTS
from benchmarks.evidence.results import (
    FAMILIES,
    TITLES,
    Network,
    Task,
    differences,
    frontier,
    matches,
    most_accurate,
    read,
)

COSTS = {
    "weight_bytes": 40_000,
    "state_bits": 1600,
    "state_bits_per_neuron": 2.0,
    "spikes": 10.0,
    "synaptic_operations": 500e3,
    "streaming_synaptic_operations": 2500e3,
    "macs": 7e3,
    "neuron_operations": 3e3,
    "energy_joules": 460e-9,
    "streaming_energy_joules": 2.26e-6,
}
OLD_COSTS = {
    key: value for key, value in COSTS.items() if key not in ("neuron_operations", "streaming_energy_joules")
}


def run(
    seed: int, accuracy: float, *, fold: int | None = None, costs: dict[str, Any] = COSTS
) -> dict[str, Any]:
    options = {} if fold is None else {"fold": fold}
    return {
        "seed": seed,
        "config": {"data": {"options": options}},
        "validation_accuracy": accuracy + 1,
        "test_accuracy": accuracy,
        "readout_steps": 1,
        "costs": costs,
    }


def network(
    name: str,
    accuracies: Sequence[float],
    family: str = "memory-free",
    milliseconds: float | None = 3.14,
    **costs: float,
) -> Network:
    runs = tuple(run(seed, accuracy, costs=COSTS | costs) for seed, accuracy in enumerate(accuracies))
    return Network(name, name.capitalize(), family, "", runs, milliseconds)


def task(*networks: Network, name: str = "spoken_hard", reference: str = "lif") -> Task:
    return Task(name, {network.name: network for network in networks}, reference)


LIF = network("lif", [80.0, 81.0], "LIF, 1-bit weights")
OURS = network("ours", [81.0, 84.0], weight_bytes=20_000, streaming_energy_joules=1e-6)


# --- comparisons ------------------------------------------------------------------------------------------


def test_differences_pair_the_runs_of_the_same_seed_and_fold() -> None:
    first = Network("a", "A", "GRU", "", (run(0, 90.0, fold=0), run(0, 80.0, fold=1), run(2, 70.0, fold=0)))
    second = Network("b", "B", "GRU", "", (run(0, 70.0, fold=1), run(0, 89.0, fold=0), run(1, 60.0, fold=0)))
    assert differences(first, second) == [1.0, 10.0]
    assert page.paired_text(first, second) == "+5.5 ± 6.4 (2)"  # (10 - 1) / sqrt(2)
    assert page.paired_text(second, first) == "−5.5 ± 6.4 (2)"
    assert page.paired_text(first, first) == page.paired_text(first, None) == ""


@given(st.lists(st.tuples(st.integers(1, 6).map(float), st.integers(1, 6).map(float)), max_size=12))
def test_the_frontier_is_what_no_other_network_beats(points: list[tuple[float, float]]) -> None:
    def beaten(cost: float, accuracy: float) -> bool:
        return any(
            other != (cost, accuracy) and other[0] <= cost and other[1] >= accuracy for other in points
        )

    kept = frontier(points)
    assert sorted(kept) == [index for index, point in enumerate(points) if not beaten(*point)]
    assert [points[index] for index in kept] == sorted(points[index] for index in kept)


def test_networks_are_chosen_by_validation_and_not_by_test_accuracy() -> None:
    better = Network("a", "A", "GRU", "", ({**run(0, 70.0), "validation_accuracy": 99.0},))
    assert most_accurate([better, network("b", [90.0])]) is better
    assert most_accurate([]) is None


def test_the_worst_comparison_comes_first() -> None:
    near = task(LIF, network("ours", [79.0, 81.0], weight_bytes=20_000), name="rows")
    far = task(LIF, network("ours", [71.0, 72.0], weight_bytes=80_000), name="still")
    words = [
        (pair.task.name, pair.ours.name if pair.ours else None, pair.lead) for pair in matches([near, far])
    ]
    assert words == [
        ("still", None, -float("inf")),  # nothing there does with the bytes of the LIF
        ("still", "ours", -9.0),
        ("rows", "ours", -0.5),
        ("rows", "ours", -0.5),
    ]
    assert "no memory-free network does with the bytes" in answers.rivals(near, [near, far])
    assert "A rival is ahead in 4 of 4 comparisons" in answers.rivals(near, [near, far])


def test_costs_that_a_run_does_not_say_are_none_and_not_zero() -> None:
    old = Network("a", "A", "GRU", "", (run(0, 80.0), run(1, 80.0, costs=OLD_COSTS)))
    assert old.streaming_energy is None
    assert old.total_bytes == 40_200
    assert old.streaming_operations == 2507e3  # a stream repeats no product unless the costs say so
    assert network("b", [80.0], streaming_macs=9e3).streaming_operations == 2509e3
    assert Network("a", "A", "GRU", "", ({**run(0, 80.0), "costs": {}},)).total_bytes is None


# --- tables -----------------------------------------------------------------------------------------------


def cells(text: str, row: int) -> list[str]:
    return [cell.strip() for cell in text.splitlines()[row].split("|")[1:-1]]


def test_a_row_has_means_over_runs_and_the_paired_difference() -> None:
    text = page.table(task(LIF, OURS))
    assert cells(text, 0)[2] == "against Lif, points (pairs)"
    assert cells(text, 2)[:4] == ["Lif", "80.5 ± 0.7", "", "last step"]
    assert cells(text, 3) == [
        "Ours", "82.5 ± 2.1", "+2.0 ± 1.4 (2)", "last step", "2",
        "20,000 / 20,200", "507 / 2,507", "460 / 1,000", "10", "3.1",
    ]  # fmt: skip


def test_cells_that_the_results_do_not_have_are_empty() -> None:
    old = Network("old", "Old", "memory-free", "", (run(0, 80.0, costs=OLD_COSTS),))
    text = page.table(task(LIF, old))
    assert cells(text, 3) == [
        "Old (one run)", "80.0", "0.0 (1)", "last step", "2",
        "40,000 / 40,200", "507 / 2,507", "", "10", "",
    ]  # fmt: skip
    assert cells(page.table(task(old)), 2)[2] == ""


def test_the_readout_that_validation_chose_is_shown() -> None:
    runs = tuple({**run(seed, 80.0), "readout_steps": steps} for seed, steps in enumerate((28, 14, 28)))
    assert page.readout_text(Network("a", "A", "GRU", "", runs)) == "mean of last 14 / 28"
    assert page.readout_text(LIF) == "last step"


def test_the_short_table_has_the_networks_with_a_short_name() -> None:
    named = Network("a", "A", "GRU", "a", (run(0, 80.0),))
    assert len(page.short_table(task(LIF, named)).splitlines()) == 3


# --- words ------------------------------------------------------------------------------------------------


def fill(words: str, *tasks: Task) -> tuple[str, list[str]]:
    return page.fill(words, page.Values({task.name: task for task in tasks}, "figures"))


def test_words_name_values_of_the_results() -> None:
    words = (
        "{spoken_hard[lif].accuracy} %, "
        "{main[ours against lif].accuracy}, {main[ours against lif].total_bytes}, "
        "{main[lif].streaming_energy}, {main[lif].streaming_operations}, {main[lif against lif].accuracy}"
    )
    text, reasons = fill(words, task(LIF, OURS))
    assert text == "80.5 %, 2.0 points above, 0.5 times, 2.26 µJ, 2,507 thousand, level with\n"
    assert reasons == []


def test_paragraphs_bullets_and_sections_without_their_values_are_left_out() -> None:
    words = "# One\n\nA {spoken_hard[gone].accuracy}\n\n- b\n- c {rows[lif].accuracy}\n  more\n- d\n\n"
    words += "## Two\n\n{figures[energy]}\n"
    text, reasons = fill(words, task(network("lif", [80.0], "GRU", streaming_energy_joules=1e-6)))
    assert text.startswith("# One\n\n- b\n- d\n\n## Two\n\n![")
    assert reasons == ["spoken_hard: no network 'gone'", "rows has no results"]
    old = Network("lif", "Lif", "GRU", "", (run(0, 80.0, costs=OLD_COSTS),))
    text, reasons = fill(words, task(old))
    assert text == "# One\n\n- b\n- d\n"
    assert reasons[-1] == "figures[energy] has no results"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("{sponken[lif].accuracy}", ValueError),
        ("{spoken_hard[lif].acuracy}", AttributeError),
        ("{spoken_hard[ours against lif].acuracy}", AttributeError),
        ("{figures[byte]}", ValueError),
        ("{answers[byte]}", ValueError),
    ],
)
def test_words_that_no_results_can_have_are_refused(words: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="give one of"):
        fill(words, task(LIF, OURS))


def test_every_question_is_answered_from_the_results() -> None:
    tasks = [task(LIF, OURS), task(LIF, network("ours", [70.0, 72.0]), name="still")]
    texts = {name: answer(tasks[0], tasks) for name, answer in page.QUESTIONS.items()}
    assert all(text.count(". ") >= 1 and text.endswith(".") for text in texts.values())
    assert "2.0 points above *Lif* (80.5 %)" in texts["accuracy"]
    assert "between −9.5 (still images) and +2.0 (spoken digits in a stream)" in texts["accuracy"]
    assert "40.2 kB, 200 bytes of it" in texts["bytes"]
    assert "*Ours* takes 20.2 kB and is 2.0 points above it" in texts["bytes"]
    assert "*Ours* takes 1 µJ and is 2.0 points above it" in texts["energy"]
    assert "3 ms" in texts["training"]
    dear = [task(LIF, network("ours", [81.0, 81.0], weight_bytes=80_000))]
    assert "Every memory-free network takes more: at least 80.2 kB" in answers.memory(dear[0], dear)


def test_every_task_has_words_and_its_figure_and_table() -> None:
    for name in TITLES:
        text, _ = page.render_page({name: task(LIF, OURS, name=name)})
        assert f"](figures/evidence_{name}.png)" in text
        assert page.table(task(LIF, OURS, name=name)) in text
        assert "{" not in text.replace("{-", "")


@pytest.mark.parametrize("name", TITLES)
def test_the_introduction_of_a_task_has_no_links_since_it_stands_in_two_folders(name: str) -> None:
    introduction = page.TaskValues(task(LIF, name=name)).introduction
    assert len(introduction) > 100
    assert "](" not in introduction


@pytest.mark.parametrize("name", ["spoken_hard", "rows"])
def test_the_readme_shows_speech_or_else_rows(name: str) -> None:
    tasks = {other: task(LIF, OURS, name=other) for other in ("rows", "still", *[name])}
    text, _ = page.render_readme(tasks)
    assert f"docs/figures/evidence_{name}.png" in text
    assert text.startswith(page.TaskValues(tasks[name]).introduction[:40])


# --- figures ----------------------------------------------------------------------------------------------


def test_every_figure_that_the_results_suffice_for_is_drawn(tmp_path: Path) -> None:
    old = Network("lif", "Lif", "LIF, 1-bit weights", "two words", (run(0, 80.0, costs=OLD_COSTS),))
    tasks = {
        "spoken_hard": task(LIF, OURS),
        "rows": task(old, name="rows"),
        "still": task(OURS, name="still"),
    }
    figures = page.figures_of(tasks)
    assert list(figures) == [
        "bytes",
        "energy",
        "accuracy",
        "worst",
        "training",
        "spoken_hard",
        "rows",
        "still",
    ]
    for name, figure in figures.items():
        figure.draw(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
    assert set(page.figures_of({"rows": task(old, name="rows")})) == {"bytes", "accuracy", "rows"}


def test_families_differ_in_gray_and_our_networks_are_filled() -> None:
    assert tuple(draw.COLORS) == FAMILIES
    assert len({marker for _, marker in draw.COLORS.values()}) == len(draw.COLORS)
    assert {family for family in draw.COLORS if draw.style(family)["markerfacecolor"] != "white"} == {
        family for family in draw.COLORS if family.startswith("memory-free")
    }


# --- what is committed ------------------------------------------------------------------------------------


def test_the_committed_page_is_what_the_command_writes() -> None:
    text, _ = page.render_page(read(RESULTS))
    assert page.PAGE.read_text() == text, "python -m benchmarks.evidence --show"


def test_the_committed_readme_is_what_the_command_writes() -> None:
    text, _ = page.render_readme(read(RESULTS))
    assert page.between(page.README.read_text(), "evidence", text) == page.README.read_text()


def test_the_committed_page_has_a_row_for_each_network_and_its_mean_accuracy() -> None:
    text = page.PAGE.read_text()
    for results in read(RESULTS).values():
        for one in results.networks.values():
            mean = statistics.fmean(run["test_accuracy"] for run in one.runs)
            assert any(
                line.startswith(f"| {one.label}") and f"| {mean:.1f}" in line for line in text.splitlines()
            ), one.name


def test_a_family_that_no_figure_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evidence_rows.json").write_text("[]")
    (tmp_path / "rows.toml").write_text(
        'base = "digits-mfp"\n[[network]]\nname = "a"\nfamily = "LIFs"\nset = { "training.epochs" = 1 }\n'
    )
    with pytest.raises(ValueError, match=r"'a': family = 'LIFs': give one of LIF, float weights;"):
        read(tmp_path, tmp_path)
