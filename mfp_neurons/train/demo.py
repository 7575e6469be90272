"""The demonstration: three networks learn to read digits row by row, are compared, and one is deployed."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from mfp_neurons.reporting import Report, report
from mfp_neurons.train import config as config_module
from mfp_neurons.train import data as data_module
from mfp_neurons.train import deployment, figures, tables
from mfp_neurons.train.data import Data
from mfp_neurons.train.engine import BEST, LAST, Trainer, bar, load_network

NETWORKS = {
    "digits-lif": "LIF, float weights, float potential",
    "digits-lif-2bit": "LIF, 1-bit weights, 2-bit potential",
    "digits-mfp": "memory-free, 1-bit weights, power-of-two taps",
}
TIMED_STEPS = 60
REPORTED_SAMPLES = 100
NOTES = """\
accuracy   on the test images, mean and standard deviation over {seeds} seeds
read-out   how many last steps the scores are averaged over, chosen for each network and seed by validation
state      bits that a hidden neuron keeps from one step to the next, mean over the neurons
training   milliseconds for a step of {batch} digits, median; the networks take turns on one thread. A step
           with 1-bit weights also quantizes them, which in layers as small as these costs more time than the
           neurons save. docs/results/benchmarks.md has the neurons alone, and larger networks
energy     an estimate for one digit, all steps at once / as a stream, from published prices by bits (45 nm):
           a synaptic operation costs 0.9 pJ with a float weight, 0.1 with one of 1 bit; what neurons compute
           is in it, memory accesses are not. In a stream a memory-free neuron repeats operations instead of
           keeping a potential"""


@dataclass(frozen=True)
class Outcome:
    """What the demonstration found out about one network."""

    label: str
    runs: list[dict[str, Any]]  # one result a seed
    report: Report
    milliseconds: float


def run(out: Path, *, seeds: int = 3, epochs: int | None = None, bars: bool = True) -> str:
    """Trains, measures and draws; returns the text to print. Files go to ``out`` and replace earlier ones."""
    torch.set_num_threads(1)  # these networks are too small to share between cores
    overrides = {} if epochs is None else {"training.epochs": epochs}
    data = data_module.load(config_module.load("digits-mfp").data)
    with bar(len(NETWORKS) * seeds, "networks trained", bars) as shown:
        results = {
            name: [_train(name, seed, out, data, overrides, bars, shown) for seed in range(seeds)]
            for name in NETWORKS
        }
    times = step_milliseconds(data)
    modules = {name: load_network(out / name / "seed0" / BEST, data=data)[0] for name in NETWORKS}
    few = data.sequence(data.test.samples[:REPORTED_SAMPLES])
    outcomes = [
        Outcome(label, results[name], report(modules[name], few), times[name])
        for name, label in NETWORKS.items()
    ]
    figure = out / "demo.png"
    figures.demo(
        [result for runs in results.values() for result in runs],
        {label: modules[name] for name, label in NETWORKS.items()},
        data.sequence(data.test.samples[:1]),
        int(data.test.labels[0]),
        figure,
    )
    batch = config_module.load("digits-mfp").training.batch_size
    notes = NOTES.format(seeds=seeds, batch=batch)
    best = out / "digits-mfp" / "seed0" / BEST
    return (
        f"{_table(outcomes)}\n\n{notes}\n\nfigure      {figure}\ncheckpoint  {best}\n"
        f"            mfp-neurons evaluate {best}\n            mfp-neurons report {best}\n\n"
        f"{_deployed(best, data, out / 'device')}"
    )


def _train(
    name: str, seed: int, out: Path, data: Data, overrides: dict[str, Any], bars: bool, shown: Any
) -> dict[str, Any]:
    folder = out / name / f"seed{seed}"
    (folder / LAST).unlink(missing_ok=True)  # every demonstration starts anew
    config = config_module.load(name, {**overrides, "training.seed": seed})
    result = Trainer(config, folder, data, bars=bars).run()
    shown.update()
    return {"name": name, "label": NETWORKS[name], "family": NETWORKS[name], **result}


def step_milliseconds(data: Data, steps: int = TIMED_STEPS) -> dict[str, float]:
    """Median time of a training step of each network, taken in turns so that all meet the same machine."""
    with TemporaryDirectory() as folder:
        trainers = {n: Trainer(config_module.load(n), Path(folder), data, bars=False) for n in NETWORKS}
        picked = {n: t.order()[0] for n, t in trainers.items()}
        times: dict[str, list[float]] = {n: [] for n in NETWORKS}
        for number in range(steps + 5):
            for name, trainer in trainers.items():
                start = time.perf_counter()
                trainer.step(picked[name])
                if number >= 5:  # the first ones warm up
                    times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def _deployed(checkpoint: Path, data: Data, c_directory: Path) -> str:
    """The memory-free network in integers: what it costs, whether its executions agree, and its C."""
    deployed = deployment.lower_checkpoint(checkpoint, data=data)
    out = checkpoint.with_name(deployment.INTEGERS)
    text = deployment.measured_and_written(deployed, out, c_directory)
    return f"The memory-free network as integers, one thread:\n\n{text}"


def _table(outcomes: list[Outcome]) -> str:
    head = (
        "network",
        "accuracy, %",
        "read-out",
        "weights, bytes",
        "state, bits a neuron",
        "training, ms a step",
        "energy, nJ (estimate): at once / stream",
    )
    rows = [
        (
            o.label,
            tables.spread_text([r["test_accuracy"] for r in o.runs]),
            tables.readout_text(o.runs),
            f"{o.report.weight_bytes:,}",
            f"{o.report.state_bits_per_neuron:.3g}",
            f"{o.milliseconds:.1f}",
            f"{1e9 * o.report.energy_joules:.1f} / {1e9 * o.report.streaming_energy_joules:.1f}",
        )
        for o in outcomes
    ]
    return tables.markdown(head, rows)
