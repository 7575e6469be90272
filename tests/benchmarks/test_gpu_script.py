"""benchmarks/gpu.sh says what it ran and what it skipped, with an interpreter that is stood in for."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"
STEPS = ("compile", "tests", "bench", "memcheck", "racecheck")


@pytest.fixture
def run(tmp_path):
    """Runs the script with an interpreter and a sanitizer that do what a shell command does."""

    def run_with(command: str, **environment: str) -> tuple[int, str]:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name in ("python", "compute-sanitizer"):
            (folder / name).write_text(f"#!/bin/sh\n{command}\n")
            (folder / name).chmod(0o755)
        path = f"{folder}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", str(SCRIPT), str(tmp_path / "out")],
            env={**os.environ, "PATH": path, "PYTHON": "python", **environment},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode, (tmp_path / "out" / "summary.txt").read_text()

    return run_with


def test_every_step_is_in_the_summary_and_few_files_come_back(run, tmp_path):
    status, summary = run("true")
    assert status == 0
    for step in STEPS:
        assert f"{step}: passed" in summary
    assert len(list((tmp_path / "out").iterdir())) <= 8


def test_what_is_skipped_is_said_with_its_reason(run):
    _, summary = run("true", SKIP="tests racecheck")
    assert "tests: skipped, as SKIP asks" in summary and "racecheck: skipped" in summary
    _, summary = run("true", LIMIT="0")
    for step in STEPS:
        assert f"{step}: skipped, no time left of LIMIT" in summary


def test_without_a_gpu_nothing_passes(run):
    status, summary = run("false")
    assert status == 1 and "no GPU that the kernels can run on" in summary and "passed" not in summary


def test_a_step_that_fails_fails_the_script(run):
    status, summary = run('case "$*" in *pytest*) exit 3;; esac')
    assert status == 1 and "tests: FAILED (3)" in summary and "bench: passed" in summary
