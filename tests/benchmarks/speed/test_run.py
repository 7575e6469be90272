"""The command from end to end, small; what is planned for which device; what it refuses."""

import json
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.speed import __main__ as run
from benchmarks.speed import plan, targets
from benchmarks.speed.networks import BITS, FUSED, OURS, VARIANTS
from benchmarks.speed.peers import RESET_PEERS

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one quick run of everything."""
    folder = tmp_path_factory.mktemp("bench")
    assert run.main(["--quick", "--device", "cpu", "--threads", "1", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def found(quick: Path) -> dict[str, Any]:
    return json.loads((quick / "bench_cpu.json").read_text())  # type: ignore[no-any-return]


def test_a_quick_run_writes_json_markdown_and_figures(quick: Path) -> None:
    names = {path.name for path in quick.iterdir()}
    assert names == {"bench_cpu.json", "bench_cpu.md", "bench_cpu_time_float32.png", "bench_cpu_networks.png"}
    text = (quick / "bench_cpu.md").read_text()
    assert "mean nothing" in text
    for heading in (
        "Neuron alone",
        "Resets",
        "Bytes that must move",
        "Batch normalization",
        "Training steps",
        "Bars",
    ):
        assert f"## {heading}" in text


def test_every_planned_row_is_in_the_result_with_every_peer(found: dict[str, Any]) -> None:
    facts = found["facts"]
    assert (facts["device"], facts["threads"], found["options"]["quick"]) == ("cpu", 1, True)
    assert facts["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert list(found["rows"]) == [row.id for row in plan.rows(CPU, quick=True)]
    for name, row in found["rows"].items():
        assert "skipped" not in row, row
        for entry in row["entries"]:
            assert ("ms" in entry) != ("skipped" in entry)
        ran = {entry["name"] for entry in row["entries"] if "ms" in entry}
        if name.startswith("neuron/"):
            assert {"MFPNode", "LIFNode", "PSN", "SlidingPSN"} <= ran
            assert {"MFPLeakyParallel", "snn.Leaky", "StateLeaky", "LeakyParallel"} <= ran
        if name.startswith("reset/"):
            assert ran == {peer.name for peer in RESET_PEERS}
        if name.startswith("norm/"):
            assert {"norm + MFPNode, fused", "norm + MFPNode", "norm + LIFNode"} <= ran
        if name.startswith("network/"):
            assert [entry["name"] for entry in row["entries"]] == list(VARIANTS)
            assert {OURS, FUSED, "LIFNode"} <= ran


def test_memory_of_a_training_step_is_in_order(found: dict[str, Any]) -> None:
    (row,) = [row for name, row in found["rows"].items() if name.startswith("network/")]
    ran = {entry["name"]: entry["memory"] for entry in row["entries"] if "ms" in entry}
    for memory in ran.values():
        assert 0 < memory["held_bytes"] <= memory["activation_peak_bytes"] < memory["peak_bytes"]
        assert memory.get("saved_bytes", 0) <= memory["held_bytes"]
    assert ran[BITS]["held_bytes"] < ran[FUSED]["held_bytes"]
    assert ran[FUSED]["saved_bytes"] < ran[OURS]["saved_bytes"] < ran["LIFNode"]["saved_bytes"]


def test_only_the_rows_that_match_run_and_time_can_run_out(tmp_path: Path) -> None:
    said: list[str] = []
    path = run.run(
        tmp_path, device="cpu", threads=1, quick=True, only=("neuron/T=4,*/forward", "norm/*"), minutes=0.0,
        say=said.append,
    )  # fmt: skip
    rows = json.loads(path.read_text())["rows"]
    assert [name.split("/")[0] for name in rows] == ["neuron", "norm", "norm"]
    assert all(row == {"skipped": "no time left (--minutes)"} for row in rows.values())
    assert "owed" in run.judged(path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "nothing"], "no row matches nothing; there are:"),
        (["--device", "abacus"], "device must be cpu, cuda or cuda:N"),
        (["--device", "meta"], "is not here"),
        (["--markdown-from", "missing.json"], "missing.json"),
        (["--markdown-from", __file__], "is no JSON"),
    ],
)
def test_a_mistake_is_a_sentence_and_status_2(
    words: list[str], told: str, capsys: Any, tmp_path: Path
) -> None:
    assert run.main(["--out", str(tmp_path), *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_full_plan_has_every_row_that_a_bar_names(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    rows = plan.rows(torch.device(device, 0))
    if device == "cuda":
        wanted = [plan.wanted_by_a_target(row) for row in rows]
        assert wanted == sorted(wanted, reverse=True)
    names = [row.id for row in rows]
    assert len(names) == len(set(names))
    for target in targets.TARGETS:
        if target.device == device:
            assert any(fnmatchcase(name, f"{target.row}*") for name in names), target
