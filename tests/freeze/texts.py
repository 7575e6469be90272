"""The texts that the tests provoke: what is raised, warned and logged, as sets that survive when tests move.

This module is a plugin of pytest too; numbers in texts become N, for random examples change with their tests.
"""

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from .book import Book, cleaned

ROOT = Path(__file__).parents[2]
WRITTEN = "MFP_FREEZE_TEXTS"
LEFT_OUT = [
    *(
        "bench",
        "docs",
        "freeze",
        "train",
        "zoo",
        "cuda_on_host",
        "deploy/test_fuzz.py",
        "deploy/test_cortex_m.py",
    ),
    *("deploy/test_compiled_builds.py", "deploy/test_threads.py", "test_evidence.py", "test_examples.py"),
    *(
        "test_gpu_script.py",
        "test_kernels_cuda.py",
        "test_kernels_cuda_compile.py",
        "test_kernels_cuda_gpu.py",
    ),
    *(
        "test_kernels_cuda_host.py",
        "test_notebooks.py",
        "test_package.py",
        "test_tools.py",
        "test_neurobench.py",
    ),
    *("test_distribution.py", "test_doctor.py", "deploy/test_lower_zoo.py", "deploy/test_codegen.py"),
]
QUICK = [
    "nir",
    "test_convert.py",
    "test_quantize.py",
    "test_report.py",
    "test_orders.py",
    "test_functional.py",
]


def record(book: Book, quick: bool = False) -> None:
    """Runs the narrow tests, and records the set of texts with no counts; those are in texts/counts.txt."""
    with tempfile.TemporaryDirectory() as name:
        written = Path(name) / "texts.json"
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--maxfail=1000", "-p", "tests.freeze.texts"]
        command += ["--no-header", "-p", "no:cacheprovider", "--tb=no", "-rN"]
        command += [f"--ignore=tests/{one}" for one in LEFT_OUT]
        command += (
            [f"tests/{one}" for one in QUICK if (ROOT / "tests" / one).exists()] if quick else ["tests"]
        )
        environment = {**os.environ, WRITTEN: str(written), "CI": "1", "MFP_EXAMPLES": "5"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        print(done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr)  # noqa: T201
        texts: dict[str, dict[str, int]] = json.loads(written.read_text())
    lines = []
    for kind, counts in sorted(texts.items()):
        for text, count in sorted(counts.items()):
            book.put(kind, text, True)
            lines.append(f"{count:6} {kind} {text}")
    path = book.folder / book.part / "counts.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


# --- the plugin --------------------------------------------------------------------------------------------

_heard: dict[str, Counter[str]] = {}


def _hear(kind: str, text: str) -> None:
    text = re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "N", cleaned(text))
    text = re.sub(r"(N, )+N", "N, ..", text)
    _heard.setdefault(kind, Counter())[text] += 1


class _Listener(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        _hear(f"logged {record.levelname}", record.getMessage())
        return True


def pytest_configure(config: pytest.Config) -> None:
    if WRITTEN not in os.environ:
        return
    logging.getLogger("mfp_neurons").addFilter(_Listener())
    kind: Any = type(pytest.raises(Exception))
    leave = kind.__exit__

    def hearing(self: Any, exc_type: Any, exc_value: Any, traceback: Any) -> Any:
        if exc_value is not None:
            _hear(f"raised {exc_type.__name__}", str(exc_value))
        return leave(self, exc_type, exc_value, traceback)

    kind.__exit__ = hearing


def pytest_warning_recorded(warning_message: Any) -> None:
    _hear("warned", str(warning_message.message))


def pytest_sessionfinish() -> None:
    if WRITTEN in os.environ:
        Path(os.environ[WRITTEN]).write_text(json.dumps(_heard))
