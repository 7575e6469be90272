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
from typing import Any, TextIO

import torch

from .calls import Inputs, Neuron, Peer, Size, probe, sample
from .peers import BY_NAME, OLD
from .timing import Sample, Skip, clock_for, reason

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
        """As :func:`.calls.probe`, over there."""
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
            checkout = Path(__file__).parents[2]
            path = [str(self._find()), str(checkout), os.environ.get("PYTHONPATH", "")]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.speed.worker", str(self._threads)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
            )  # fmt: skip
        return self._process


# --- in the other process -------------------------------------------------------------------------------


class Desk:
    """What was built, and the answers."""

    def __init__(self) -> None:
        self._built: dict[str, tuple[Neuron, Inputs, Sample]] = {}
        self._inputs: dict[Size, Inputs] = {}

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._answer(message)
        except Exception as error:
            return {"error": reason(error)}

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        match message["do"]:
            case "build":
                return {"note": self._build(message)}
            case "call":
                return {"parts": self._built[message["name"]][2]()}
            case "probe":
                neuron, inputs, _ = self._built[message["name"]]
                return {"facts": probe(neuron, inputs)}
            case "forget":
                self._built.clear()
                self._inputs.clear()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
        return {}

    def _build(self, message: dict[str, Any]) -> str:
        dtype = getattr(torch, message["dtype"])
        size = Size(message["steps"], tuple(message["step"]), dtype, torch.device(message["device"]))
        if size not in self._inputs:
            self._inputs[size] = Inputs(size.shape, dtype, size.device)
        inputs = self._inputs[size]
        neuron = BY_NAME[message["name"]].build(size)
        timed = sample(neuron, inputs, message["work"], clock_for(size.device))
        self._built[message["name"]] = neuron, inputs, timed
        return neuron.note


def serve(lines: TextIO, answers: TextIO) -> None:
    """Answers until the lines end."""
    desk = Desk()
    for line in lines:
        answers.write(json.dumps(desk.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    own_stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    serve(sys.stdin, own_stdout)
