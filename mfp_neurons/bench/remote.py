"""Peers in a process of their own, one call at a time, in turn with the calls of this process.

Two versions of SpikingJelly cannot be imported into one process. The worker has the other one first on its
import path and answers one JSON line for each that it reads; this process waits idle meanwhile. Our own
neuron is timed over there too, so that a reader sees what the process itself changes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import mfp_neurons

from .contest import Peer, Size
from .peers import OLD
from .timing import Sample, Skip

FOLDER = "MFP_OLD_SPIKINGJELLY"  # environment: where the old version is installed
_DEFAULT_FOLDER = Path(f".compat/spikingjelly-{OLD}")  # where `make test` puts it


def old_folder() -> Path:
    """Where the old SpikingJelly is; raises :class:`Skip` where it is not."""
    folder = Path(os.environ.get(FOLDER, _DEFAULT_FOLDER))
    if not (folder / "spikingjelly").is_dir():
        raise Skip(
            f"no SpikingJelly {OLD} in {folder}: pip install --no-deps --target it there, or set {FOLDER}"
        )
    return folder.resolve()


class Worker:
    """Starts the process when it is first asked."""

    def __init__(self, threads: int, find: Callable[[], Path] = old_folder) -> None:
        self._find, self._threads = find, threads
        self._process: subprocess.Popen[str] | None = None

    def build(self, peer: Peer, size: Size, work: str) -> tuple[Sample, str]:
        """A sample whose calls run over there, and a note on what it is."""
        shape = {"steps": size.steps, "step": size.step, "dtype": size.dtype_name}
        place = {"device": str(size.device), "work": work}
        note = self.ask({"do": "build", "name": peer.name, **place, **shape})["note"]
        return lambda: self.ask({"do": "call", "name": peer.name})["parts"], note

    def probe(self, name: str) -> dict[str, float]:
        """As :func:`mfp_neurons.bench.probe.probe`, over there."""
        return self.ask({"do": "probe", "name": name})["facts"]  # type: ignore[no-any-return]

    def forget(self) -> None:
        """Drops everything that was built over there (a process that has ended holds nothing)."""
        if self._process is not None:
            with suppress(Skip):
                self.ask({"do": "forget"})

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """One message, one answer. An error over there, or the worker's end, is a :class:`Skip` here."""
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.close()
            raise Skip(f"the worker process ended with status {process.returncode}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Skip(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the process, if there is one."""
        if self._process is not None:
            process, self._process = self._process, None
            process.communicate()

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None:
            package = Path(mfp_neurons.__file__).parents[1]
            path = [str(self._find()), str(package), os.environ.get("PYTHONPATH", "")]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mfp_neurons.bench.worker", str(self._threads)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
            )  # fmt: skip
        return self._process
