"""What a trained network costs: bytes, bits of state, operations and energy an image, time to train."""

import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import mfp_neurons
from benchmarks import sweep
from benchmarks.evidence import rivals
from benchmarks.machine import facts
from mfp_neurons import report
from mfp_neurons.train import config, deployment
from mfp_neurons.train.config import ConfigError
from mfp_neurons.train.data import Data
from mfp_neurons.train.engine import BEST, Trainer, load_network

IMAGES = 200  # of the test split, over which spikes and operations are averaged
COUNTED = (  # what a report counts of a sample, all its steps
    "state_bits",
    "state_bits_per_neuron",
    "synaptic_operations",
    "streaming_synaptic_operations",
    "macs",
    "streaming_macs",
    "neuron_operations",
    "energy_joules",
    "streaming_energy_joules",
)
# folders of the code that counts, and of neurons, which say what they compute: a change makes old costs stale
COUNTING = (Path(mfp_neurons.__file__).parent, Path(rivals.__file__).parent)
ROUNDS = 15


def of_run(result: Path) -> dict[str, float]:
    """Costs of the network that a finished run left, kept beside it until it or the counting changes.

    Returns:
        The numbers of ``report`` that ``COUNTED`` names; ``spikes`` of a sample, all layers and steps; and
        ``weight_bytes``, all parameters.
    """
    folder = result.with_suffix("")
    kept, digest = folder / "costs.json", _digest(folder / BEST)
    if kept.exists():
        known = json.loads(kept.read_text())
        if known.get("digest") == digest:
            return known["costs"]  # type: ignore[no-any-return]
    costs = measure(folder / BEST)
    kept.write_text(json.dumps({"digest": digest, "costs": costs}))
    return costs


def _digest(checkpoint: Path) -> str:
    """Of a network and of the code that counts what it costs."""
    digest = hashlib.sha256(checkpoint.read_bytes())
    for path in (Path(__file__), *sorted(path for folder in COUNTING for path in folder.rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def measure(checkpoint: Path) -> dict[str, float]:
    """Costs of a checkpoint in the folder of its run; see :func:`of_run`."""
    settings = json.loads((checkpoint.parent / "result.json").read_text())["config"]["data"]
    data = sweep.load_data(json.dumps(settings))
    module, *_ = load_network(checkpoint, data=data)
    costs = counted(module, data.sequence(data.test.samples[:IMAGES]))
    if not hasattr(module, "costs"):
        costs["weight_bytes"] = _weight_bytes(checkpoint, data, int(costs["weight_bytes"]))
    return costs


def counted(module: nn.Module, x_seq: Tensor) -> dict[str, float]:
    """Costs of a network on [T, N, *features], parameters as packed. One without spikes counts its own."""
    if hasattr(module, "costs"):
        return module.costs(x_seq)  # type: ignore[no-any-return, operator]
    costs = report(module, x_seq)
    spikes = sum((row.spikes_per_step or 0.0) * row.steps for row in costs.neurons)
    numbers = {name: getattr(costs, name) for name in COUNTED}
    return {"weight_bytes": costs.weight_bytes, "spikes": spikes} | numbers


def _weight_bytes(checkpoint: Path, data: Data, packed: int) -> int:
    """All parameters on a device: those of the integer network; of one that has no integers, as packed."""
    try:
        memory = deployment.lower_checkpoint(checkpoint, data=data).network.memory()
    except ConfigError as error:
        print(f"bytes as packed, not as deployed: {error}")
        return packed
    return memory.weights + memory.parameters


def times(plan: sweep.Sweep, results: Sequence[dict[str, Any]], overrides: sweep.Settings) -> dict[str, Any]:
    """Milliseconds of a training step of every network, in turns: the median of rounds, and the machine.

    Args:
        plan: the networks.
        results: of their runs, which say what tuning chose; a network without one is left out.
        overrides: settings over everything else, by dotted key.
    """
    tuned = {result["name"]: result["tuned"]["best"] for result in results}
    trainers: dict[str, Trainer] = {}
    data: Data | None = None
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
