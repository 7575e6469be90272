"""A trained checkpoint as an integer network, and what that network does on the test split."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mfp_neurons import deploy
from mfp_neurons._checks import require
from mfp_neurons.train import tables
from mfp_neurons.train.config import ConfigError
from mfp_neurons.train.data import Data
from mfp_neurons.train.engine import batches, load_network

if TYPE_CHECKING:
    from mfp_neurons.deploy.device.layouts import Layout

INTEGERS = "integer.safetensors"  # the file beside a checkpoint
COMPARED = 500  # samples of the test split, at most, that go through a stream and event by event
TIMED = 200


class Readout(nn.Module):
    """A network of scores at every step, averaged over the last of them: what is deployed."""

    def __init__(self, network: nn.Module, steps: int) -> None:
        super().__init__()
        self.network, self.steps = network, steps

    def forward(self, x_seq: Tensor) -> Tensor:
        """Scores [N, classes] of a sequence [T, N, *]."""
        scores: Tensor = self.network(x_seq)
        return scores[-self.steps :].mean(0)


@dataclass(frozen=True)
class Deployed:
    """A checkpoint beside its integer network."""

    model: Readout
    network: deploy.IntegerNetwork
    data: Data


def lower_checkpoint(checkpoint: Path, data_root: str | None = None, data: Data | None = None) -> Deployed:
    """Lowers the network of a checkpoint with the read-out that validation chose.

    Raises:
        CheckpointError: the file is no checkpoint of a network.
        ConfigError: its samples are not whole numbers from 0 to 255, the network is not quantized, or a part
            of it has no integer form.
    """
    module, data, _, facts = load_network(checkpoint, data_root, data)
    _check_levels(data)
    model = Readout(module, facts["readout_steps"]).eval()
    example = data.sequence(data.test.samples[:1])
    try:
        network = deploy.lower(model, example, levels=int(data.scale))
    except deploy.LoweringError as error:
        raise ConfigError(f"{checkpoint} cannot be deployed: {error}") from error
    return Deployed(model, network, data)


def _check_levels(data: Data) -> None:
    """Raises unless samples are whole numbers from 0 to a largest one that is at most 255."""
    if data.packed:  # bits
        return
    samples = data.test.samples
    least, most = float(samples.min()), max(data.scale, float(samples.max()))
    integral = not samples.is_floating_point() or bool((samples == samples.round()).all())
    # the input of an integer network is stored in 8 bits
    if not integral or least < 0 or data.scale != int(data.scale) or data.scale > 255:
        raise ConfigError(
            "data: a deployed network takes whole numbers from 0 to at most 255; samples are "
            f"{samples.dtype} from {least:g} to {most:g}. Train on pixels or counts as they are, not "
            "normalized by mean and standard deviation: the first batch norm does that"
        )


def measured_and_written(
    deployed: Deployed, out: Path, c_directory: Path | None, layout: "Layout" = "plain"
) -> str:
    """What the integer network costs, whether its executions agree, and the files that were written."""
    return "\n\n".join([costs(deployed), agreement(deployed), write(deployed, out, c_directory, layout)])


def agreement(deployed: Deployed) -> str:
    """Runs the test split in all ways; says how it went.

    Raises:
        RuntimeError: two executions differ in a score.
    """
    network, test = deployed.network, deployed.data.test
    scores, expected = _scores_of_the_test_split(deployed)
    samples = test.samples[:COMPARED]
    events = network.run_events(deployed.data.integer_input(samples))
    _check_equal("event by event", events.scores, scores[: len(samples)])
    _check_equal("step by step", _streamed(deployed, samples), scores[: len(samples)])
    labels = test.labels.numpy()
    right = 100 * (scores.argmax(1) == labels).mean()
    right_torch = 100 * (expected.argmax(1) == labels).mean()
    same = int((scores.argmax(1) == expected.argmax(1)).sum())
    operations = events.synaptic_operations / len(samples)
    return (
        f"accuracy    {right:.2f} % in integers, {right_torch:.2f} % in PyTorch; the same answer to {same:,} "
        f"of {len(test):,} test samples\n"
        "agreement   all steps at once, step by step and event by event give the same scores to the last bit "
        f"({len(samples)} samples)\n"
        f"operations  {operations:,.0f} synaptic operations a sample, event by event"
    )


def _scores_of_the_test_split(deployed: Deployed) -> tuple[Any, Any]:
    """Scores [n, classes] of the integer network and of the PyTorch model, in batches that fit a laptop."""
    numpy = require("numpy", "deploy")
    integer_scores, torch_scores = [], []
    with torch.no_grad():
        for samples, _ in batches(deployed.data.test, COMPARED):
            integer_scores.append(deployed.network.run(deployed.data.integer_input(samples)))
            torch_scores.append(deployed.model(deployed.data.sequence(samples)).numpy())
    return numpy.concatenate(integer_scores), numpy.concatenate(torch_scores)


def _streamed(deployed: Deployed, samples: Tensor) -> Any:
    """What the last steps of a stream average to, added up as the whole numbers that they are."""
    numpy = require("numpy", "deploy")
    # scores of a step are whole numbers times a unit: averaged as such they are equal to the last bit
    stream, unit = deployed.network.stream(), deployed.network.graph.scores.unit
    steps = [stream.step(x) for x in deployed.data.sequence(samples)]
    scored = [scores for scores in steps if scores is not None]  # pooled over time, not every step is
    last = [numpy.round(scores / unit) for scores in scored[-deployed.model.steps :]]
    return sum(last[1:], start=last[0]) * unit / len(last)


def _check_equal(execution: str, scores: Any, expected: Any) -> None:
    if not (scores == expected).all():
        raise RuntimeError(f"{execution}, the integer network gives other scores than all steps at once")


def costs(deployed: Deployed) -> str:
    """A table of time and memory beside PyTorch, one thread each, medians of turns."""
    network, model = deployed.network, deployed.model
    one = deployed.data.test.samples[:1]
    sequence, x = deployed.data.sequence(one), deployed.data.integer_input(one).numpy()
    with torch.no_grad():
        torch_us, integer_us = _microseconds(lambda: model(sequence), lambda: network.run(x))
    memory = network.memory()
    floats = 4 * sum(p.numel() for p in model.parameters())
    rows = [
        (
            "time for one sample, us",
            f"{torch_us:,.0f}",
            f"{integer_us:,.0f}",
            f"{torch_us / integer_us:.1f}x",
        ),
        (
            "parameters, bytes",
            f"{floats:,}",
            f"{memory.weights + memory.parameters:,}",
            f"{floats / (memory.weights + memory.parameters):.1f}x",
        ),
        ("kept between steps of a stream, bytes", "", f"{memory.state_stream:,}", ""),
        ("packed buffers of a run, bytes", "", f"{memory.peak_buffers:,}", ""),
    ]
    return tables.markdown(("", "PyTorch, float32", "integers", "ratio"), rows)


def _microseconds(*calls: Callable[[], object]) -> list[float]:
    """Median time of each call on one thread, the calls taking turns."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times: list[list[float]] = [[] for _ in calls]
    # turns, so that a machine that slows down slows all of them
    try:
        for turn in range(TIMED + 5):
            for call, durations in zip(calls, times, strict=True):
                start = time.perf_counter()
                call()
                if turn >= 5:  # the first ones warm up
                    durations.append(1e6 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    return [statistics.median(durations) for durations in times]


def write(deployed: Deployed, out: Path, c_directory: Path | None, layout: "Layout") -> str:
    """Saves the integer network, and its C if asked; says what to do with them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    deployed.network.save(out)
    lines = [
        f"network     {out} ({out.stat().st_size:,} bytes)",
        f"            deploy.IntegerNetwork.load({str(out)!r}).run(x)",
    ]
    if c_directory is not None:
        files = deployed.network.to_c(c_directory, layout=layout)
        sources = " ".join(str(file) for file in files if file.suffix == ".c")
        small = "-Os -ffunction-sections -fdata-sections"  # what is not called can be dropped in linking
        uses = {
            "plain": [
                f"cc -std=c99 -O2 -c {sources}",
                f"arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb -std=c99 {small} -c {sources}",
            ],
            "arduino": [f"copy {c_directory} into the folder libraries of your sketches, as mfp_net"],
            "platformio": [f"lib_deps = symlink://{c_directory.resolve()}"],
            "cmake": [f"cmake -S {c_directory} -B build && cmake --build build && ctest --test-dir build"],
            "zephyr": [f"west build -b BOARD {c_directory / 'samples' / 'check'}"],
        }
        use = "call mfp_net_run or mfp_net_step: docs/deployment.md has a program that does"
        lines += [f"C           {', '.join(str(file) for file in files)}"]
        lines += [f"            {line}" for line in (*uses[layout], use)]
    return "\n".join(lines)


def write_verilog(deployed: Deployed, directory: Path, lanes: int | None = None) -> str:
    """Writes the Verilog of the integer network; says which files these are and how they are synthesized."""
    options: dict[str, Any] = {} if lanes is None else {"lanes": lanes}
    files = deployed.network.to_verilog(directory, **options)
    module, *parts = (file.name for file in files if file.suffix == ".v")
    name = Path(module).stem
    return (
        f"\nVerilog     {files[0]}, with {' and '.join(parts)}; {len(files) - 1 - len(parts)} memories, "
        f"{name}_*.hex\n"
        f"            cd {directory} && yosys -p 'synth_ice40 -top {name}' {' '.join([module, *parts])}\n"
        "            docs/howto/fpga.md goes on to a bitstream"
    )
