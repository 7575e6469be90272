"""A result as Markdown and as figures: from the JSON alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import __main__ as run
from benchmarks.speed import figures, tables
from benchmarks.speed.tables import number, page
from mfp_neurons.train.tables import markdown

Result = dict[str, Any]


def line_of(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_time_has_its_quartiles_and_its_ratio_to_ours(result: Result) -> None:
    text = tables.neurons(result)
    assert line_of(text, "LIFNode")[1] == "40 [36, 50] 8.00x"
    assert line_of(text, "MFPNode")[1:] == ["5 [4.5, 6.25]", "4 [3.6, 5]"]
    assert line_of(text, "LIFNode")[0] == "LIFNode (loop)"
    text = tables.networks(result)
    assert line_of(text, "MFPNode, fused")[1:] == ["100 [90, 125]", "", "2", "3", "4.5"]
    assert line_of(text, "LIFNode")[3:] == ["4", "6", "9"]


def test_the_short_table_sets_ours_beside_what_it_replaces(result: Result) -> None:
    text = tables.in_short(result)
    assert line_of(text, "`neuron/T=4,N=1600000`")[1:] == ["5", "40 (8.0x)", "-", "-"]
    assert line_of(text, "`network/FashionMNISTNet-32/T=4,batch=32,28x28`")[1:3] == ["100", "151 (1.5x)"]
    assert len(text.splitlines()) == 2 + 3  # T = 64 has no peer, and what did not run has no line
    assert text in page(result)


def test_who_did_not_run_is_named_with_place_and_reason(result: Result) -> None:
    text = tables.neurons(result)
    assert "- SlidingPSN at T = 4, N = 1,600,000: too slow" in text
    assert "- LIFNode at T = 64, N = 100,000: gone" in text
    assert "LIFNode: RuntimeError: no" in tables.neuron_memory(result).replace(" at T = 4, N = 1,600,000", "")
    assert "T=1024,N=4096/float32/training: no time left (--minutes)" in page(result)


def test_the_copy_table_shows_bytes_bandwidths_and_shares(result: Result) -> None:
    (line,) = [text for text in tables.copies(result).splitlines() if "MFPNode" in text]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2:] == ["128", "25.6", "12.8", "50 %", "40 %", "60 %"]


def test_the_page_says_where_it_was_measured_and_that_the_checkout_was_changed(result: Result) -> None:
    text = page(result, {"a.png": "words"})
    assert "2 threads of 2 processors" in text
    assert "commit 0123456789ab, changed" in text
    assert "triton" not in text
    assert "![words](a.png)" in text
    assert "- saved: by hooks" in text
    assert "worker process" not in text
    assert "mean nothing" not in text
    result["options"]["quick"] = True
    assert "mean nothing" in page(result)
    result["facts"]["device"] = "cuda"
    assert "worker process" in page(result)


def test_a_page_of_nothing_but_skipped_rows_can_be_written(result: Result) -> None:
    result["rows"] = {name: {"skipped": "no"} for name in result["rows"]}
    assert all(f"- {name}: no\n" in page(result) + "\n" for name in result["rows"])


def test_tables_and_figures_come_again_from_a_result_file(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "bench_cpu.json"
    path.write_text(json.dumps(result))
    assert run.show(path) == tmp_path / "bench_cpu.md"
    assert json.loads(path.read_text()) == result
    drawn = figures.draw(result, tmp_path, "bench_cpu")
    assert set(drawn) == {"bench_cpu_time_float32.png", "bench_cpu_networks.png"}
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in drawn)
    assert "T = 4: MFPNode" in drawn["bench_cpu_time_float32.png"]
    assert "LIFNode 151 ms" in drawn["bench_cpu_networks.png"]
    page = (tmp_path / "bench_cpu.md").read_text()
    assert all(f"![{words}]({name})" in page for name, words in drawn.items())


def test_without_matplotlib_the_page_is_written_all_the_same(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mfp_neurons._checks import MissingDependency

    def missing(*_: Any) -> dict[str, str]:
        raise MissingDependency("matplotlib is not installed")

    monkeypatch.setattr(figures, "draw", missing)
    path, said = tmp_path / "bench_cpu.json", list[str]()
    path.write_text(json.dumps(result))
    assert "![" not in run.show(path, say=said.append).read_text()
    assert said == ["no figures: matplotlib is not installed"]


def test_a_table_is_padded_and_numbers_are_short() -> None:
    assert markdown(["", "a"], [["long", "1"]]) == "|      | a |\n|------|---|\n| long | 1 |"
    assert [number(x) for x in (0.012345, 1.5, 12345.6)] == ["0.0123", "1.5", "12,346"]
