"""Trains a 1-bit network on the scores of a float LIF as well as on labels: does the teacher help?

    python -m benchmarks.distill --out runs/distill    # some ten minutes; goes on where it stopped

The float LIF of benchmarks/evidence/still.toml, trained as there, teaches the memory-free network with 1-bit
weights and power-of-two taps, whose settings, budget and seeds are those of the evidence. The loss is half
cross-entropy, half divergence from the teacher's scores at a temperature (arXiv 1503.02531, section 2), which
was not tuned. Writes benchmarks/results/distill.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div

from benchmarks.evidence.results import read_runs
from mfp_neurons.train import config, data
from mfp_neurons.train.checkpoint import write_json
from mfp_neurons.train.config import Config
from mfp_neurons.train.data import Data
from mfp_neurons.train.engine import BEST, RESULT, Trainer, autocast, load_network

RESULTS = Path(__file__).parent / "results"
TEACHER, STUDENT, TEMPERATURE = "lif-float", "pow2", 4.0


class Distilled(Trainer):
    """A run whose loss also asks for the scores of a teacher."""

    def __init__(self, settings: Config, out: Path, shared: Data, teacher: nn.Module) -> None:
        super().__init__(settings, out, shared)
        self.teacher = teacher.eval()

    def step(self, picked: Tensor) -> float:
        with torch.no_grad(), autocast(self.device, self.config.training.amp):
            self.wanted = self.teacher(self.data.sequence(self.data.train.samples[picked])).float().mean(0)
        return super().step(picked)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        given, wanted = (
            (s / TEMPERATURE).log_softmax(1)
            for s in (scores[-self.config.readout.train :].float().mean(0), self.wanted)
        )
        soft = TEMPERATURE**2 * kl_div(given, wanted, reduction="batchmean", log_target=True)
        return (super().loss(scores, labels) + soft) / 2


def finished(trainer: Trainer) -> dict[str, Any]:
    """What a run found, from its folder if it is over."""
    written = trainer.out / RESULT
    found: dict[str, Any] = json.loads(written.read_text()) if written.exists() else trainer.run(resume=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    out = parser.parse_args().out
    evidence = read_runs(RESULTS / "evidence_still.json")
    settings = {(one["name"], one["seed"]): config.from_dict(one["config"]) for one in evidence}
    plain = {one["seed"]: one["test_accuracy"] for one in evidence if one["name"] == STUDENT}
    shared = data.load(settings[TEACHER, 0].data)
    taught_by = finished(Trainer(settings[TEACHER, 0], out / TEACHER, shared))
    teacher = load_network(out / TEACHER / BEST, data=shared)[0]
    runs = [
        finished(Distilled(settings[STUDENT, seed], out / f"{STUDENT}-seed{seed}", shared, teacher))
        for seed in plain
    ]
    write_json(
        RESULTS / "distill.json",
        {
            "temperature": TEMPERATURE,
            "teacher_accuracy": taught_by["test_accuracy"],
            "distilled": [run["test_accuracy"] for run in runs],
            "plain": list(plain.values()),
        },
    )


if __name__ == "__main__":
    main()
