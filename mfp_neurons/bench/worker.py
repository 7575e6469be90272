"""The process at the other end of :mod:`.remote`: reads a JSON line, does what it says, answers with one."""

import json
import os
import sys
from typing import Any, TextIO

import torch

from .calls import Inputs, Neuron, sample
from .clock import clock_for
from .contest import Size
from .peers import BY_NAME
from .probe import probe
from .timing import Sample, reason


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
