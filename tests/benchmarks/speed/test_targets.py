"""Bars computed from results written by hand."""

from typing import Any

import pytest

from benchmarks.speed import tables, targets

from .conftest import STEP, T4, T64, T1024, entry, row

Result = dict[str, Any]
FUSED = "MFPNode, fused"


def verdict(result: Result, row_name: str, about: str, ours: str = "MFPNode") -> targets.Verdict:
    about_it = [
        v for v in targets.judge([result]) if v.target.row.rstrip("*") in row_name and about in str(v.target)
    ]
    (found,) = [v for v in about_it if v.target.ours == ours]
    return found


def test_a_ratio_at_the_limit_is_met_and_one_below_is_not(result: Result) -> None:
    lif, psn = verdict(result, T4, "LIFNode"), verdict(result, T4, "PSN")
    assert (lif.measured, lif.met) == ("8.00 times (LIFNode: loop)", True)
    assert (psn.measured, psn.met) == ("5.80 times", False)


def test_bars_of_copies_and_memory_read_what_was_measured(result: Result) -> None:
    ours = result["rows"][T4]["entries"][0], result["rows"][STEP]["entries"][0]
    copies, memory = verdict(result, T4, "copy bandwidth"), verdict(result, STEP, "activation peak", FUSED)
    assert (copies.measured, copies.met, memory.measured, memory.met) == ("50 %", True, "0.50", True)
    ours[0]["copy_share"]["total"] = 0.3
    ours[1]["memory"]["activation_peak_bytes"] = 6e6
    assert verdict(result, T4, "copy bandwidth").met is False
    assert verdict(result, STEP, "activation peak", FUSED).met is False


@pytest.mark.parametrize(
    ("name", "about", "why"),
    [
        (T64, "LIFNode", "not measured: LIFNode: gone"),
        (T1024, "StateLeaky", "not measured: no time left (--minutes)"),
    ],
)
def test_a_missing_row_or_peer_is_no_verdict_but_its_reason(
    result: Result, name: str, about: str, why: str
) -> None:
    ours = "MFPNode" if about == "LIFNode" else "MFPLeakyParallel"
    found = verdict(result, name, about, ours)
    assert (found.measured, found.met) == (why, None)
    del result["rows"][name]
    assert verdict(result, name, about, ours).measured == "not measured: no such row in this run"
    gpu = {(v.measured, v.met) for v in targets.judge([result]) if v.target.device == "cuda"}
    assert gpu == {("owed: no GPU at hand", None)}


def test_a_bar_over_several_rows_takes_the_worst_of_the_large_ones(result: Result) -> None:
    def ours(share: float) -> dict[str, Any]:
        return entry("MFPNode", 1.0, copy_share={"total": share})

    large = 1 << 26
    gpu = {"facts": {"device": "cuda"}, "rows": {
        "neuron/T=4,N=16777216/float32/forward": row(4, large // 4, ours(0.9)),
        "neuron/T=64,N=1048576/float32/forward": row(64, large // 64, ours(0.85)),
        "neuron/T=4,N=100/float32/forward": row(4, 100, ours(0.1)),
    }}  # fmt: skip
    about_it = [v for v in targets.judge([result, gpu]) if v.target.work.startswith("GPU, float32, T*N")]
    (found,) = [v for v in about_it if v.target.part == "total"]
    assert (found.measured, found.met) == ("85 % (worst of 2 rows)", True)
    gpu["rows"]["neuron/T=16,N=4194304/float32/forward"] = {"skipped": "OutOfMemoryError"}  # type: ignore[index]
    (found,) = [v for v in targets.judge([gpu]) if v.target == found.target]
    assert (found.measured, found.met) == ("not measured: OutOfMemoryError", None)


def test_the_table_has_a_line_for_every_target(result: Result) -> None:
    lines = tables.verdicts([result]).splitlines()
    assert len(lines) == 2 + len(targets.TARGETS)
    assert sum("owed" in line for line in lines) == sum(target.device == "cuda" for target in targets.TARGETS)
    assert sum(line.rstrip(" |").endswith("**no**") for line in lines) == 1
