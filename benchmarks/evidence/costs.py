"""What a trained network costs: bytes, bits of state, operations and energy an image, time to train."""

import functools
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarks import sweep
from benchmarks.machine import facts
from mfp_neurons import report
from mfp_neurons.train import config
from mfp_neurons.train import data as data_module
from mfp_neurons.train.engine import BEST, Trainer, load_network

IMAGES = 200  # of the test split, over which spikes and operations are averaged
ROUNDS = 15


def of_run(result: Path) -> dict[str, float]:
    """Costs of the network that a finished run left; kept beside it, since the network does not change."""
    kept = result.with_suffix("") / "costs.json"
    if not kept.exists():
        kept.write_text(json.dumps(_measure(result.with_suffix("") / BEST)))
    found: dict[str, float] = json.loads(kept.read_text())
    return found


def _measure(path: Path) -> dict[str, float]:
    settings = json.loads((path.parent / "result.json").read_text())["config"]["data"]
    module, data, *_ = load_network(path, data=_loaded(json.dumps(settings)))
    return measure(module, data.sequence(data.test.samples[:IMAGES]))


def measure(module: nn.Module, x_seq: Tensor) -> dict[str, float]:
    """Costs of a network in eval mode on a sequence [T, N, *]; a rival counts its own."""
    if hasattr(module, "costs"):
        return module.costs(x_seq)  # type: ignore[no-any-return, operator]
    found = report(module, x_seq)
    return {
        "weight_bytes": found.weight_bytes,
        "state_bits": found.state_bits,
        "state_bits_per_neuron": found.state_bits_per_neuron,
        "spikes": found.spikes_per_step * found.steps,
        "synaptic_operations": found.synaptic_operations,
        "streaming_synaptic_operations": found.streaming_synaptic_operations,
        "feedback_additions": found.feedback_additions,
        "macs": found.macs,
        "energy_joules": found.energy_joules,
    }


@functools.lru_cache(maxsize=1)  # all networks of a task read the same data
def _loaded(settings: str) -> data_module.Data:
    return data_module.load(config.from_dict({"data": json.loads(settings)}).data)


def times(plan: sweep.Sweep, results: Sequence[dict[str, Any]], overrides: sweep.Settings) -> dict[str, Any]:
    """Milliseconds of a training step of every network, in turns: the median of rounds, and the machine.

    Args:
        plan: the networks.
        results: of their runs, which say what tuning chose; a network without one is left out.
        overrides: settings over everything else, by dotted key.
    """
    tuned = {result["name"]: result["tuned"]["best"] for result in results}
    trainers: dict[str, Trainer] = {}
    data: data_module.Data | None = None
    for entry in plan.entries:
        if entry.name not in tuned:
            continue
        chosen = {**plan.common, **entry.settings, **tuned[entry.name], **overrides, "training.threads": 0}
        settings = config.load(plan.base, chosen)
        trainer = Trainer(settings, Path(tempfile.mkdtemp()), data, bars=False)
        trainer.network.train()
        trainers[entry.name], data = trainer, trainer.data
    taken: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(ROUNDS + 2):
        for name, trainer in trainers.items():
            picked = trainer.order()[turn % trainer.batches]
            start = time.perf_counter()
            trainer.step(picked)
            if turn >= 2:  # the first ones warm up
                taken[name].append(1e3 * (time.perf_counter() - start))
    return {
        "milliseconds_per_step": {name: statistics.median(values) for name, values in taken.items()},
        "facts": facts(trainer.device),
    }
