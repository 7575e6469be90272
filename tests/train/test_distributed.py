"""Training in two processes over gloo, as torchrun starts them, ends where one process ends."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mfp_neurons import MFP
from mfp_neurons.cli import main
from mfp_neurons.train import checkpoint
from mfp_neurons.train.config import Config, ConfigError, from_dict
from mfp_neurons.train.distributed import Processes, check_batches
from mfp_neurons.train.engine import BEST, LAST, Trainer

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_gloo_available(), reason="torch was built without gloo"
)

SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"reading": "repeat", "limit": 165},  # the last batch has 5 samples, an odd number
    "network": {
        "architecture": "tests.train.test_distributed:without_norms",
        "weight_bits": 1,
        "first_bits": 4,
        "last_bits": 4,
    },
    "readout": {"train": 4},
    "training": {
        "epochs": 2,
        "batch_size": 32,
        "learning_rate": 0.02,
        "shift": 1,
        "clip": 1.0,
        "threads": 1,
        "device": "cpu",
        "checkpoint_steps": 1,
    },
}
STOPPED_AFTER = 7  # steps, in the second epoch


class Scores(nn.Sequential):
    """Real weights, quantized ones and learned taps, and no batch norm, whose statistics two would share."""

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = super().forward(x_seq.flatten(2))
        return scores


def without_norms(features: tuple[int, ...], classes: int, time_steps: int, neurons: Any) -> nn.Module:
    return Scores(
        nn.Linear(64, 24),
        MFP(kernel="fir", order=2, num_channels=24, kernel_bits="pow2", learnable=True, v_threshold=0.3),
        nn.Linear(24, 16),
        MFP(learnable=True, v_threshold=0.3),
        nn.Linear(16, classes),
    )


def config(parallel: str = "ddp") -> Config:
    return from_dict({**SETTINGS, "training": {**SETTINGS["training"], "parallel": parallel}})


def stopped(trainer: Trainer) -> None:
    """A run that a step number breaks off, after its checkpoint."""
    step, taken = trainer.step, []

    def until(picked: torch.Tensor) -> float:
        if len(taken) == STOPPED_AFTER:
            raise KeyboardInterrupt
        taken.append(picked)
        return step(picked)

    trainer.step = until  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


def work(folder: Path) -> None:
    """What each of two processes does; ``folder`` holds a run that one process began."""
    from mfp_neurons.train.distributed import joined

    with joined() as processes:
        assert processes.count == 2
        for kind in ("ddp", "fsdp"):
            Trainer(config(kind), folder / kind, bars=False).run()
            stopped(Trainer(config(kind), folder / f"{kind}-begun", bars=False))
            Trainer(config(kind), folder / f"begun-alone-{kind}", bars=False).run(resume=True)
        own = torch.rand(1)
        with processes.own_randomness(0, 3, torch.device("cpu")):
            dropped = torch.rand(1)
        both = [torch.zeros(1), torch.zeros(1)]
        torch.distributed.all_gather(both, dropped)
        assert both[0] != both[1], "dropout of the processes is the same"
        torch.distributed.all_gather(both, own)
        assert both[0] == both[1], "what is drawn for a whole batch is not the same"
        processes.wait()


def in_two(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        *arguments,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=180)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process and of two."""
    folder = tmp_path_factory.mktemp("runs")
    Trainer(config(), folder / "alone", bars=False).run()
    for kind in ("ddp", "fsdp"):
        stopped(Trainer(config(kind), folder / f"begun-alone-{kind}", bars=False))
    ran = in_two(["-m", "tests.train.test_distributed", str(folder)], folder)
    assert ran.returncode == 0, ran.stderr
    for kind in ("ddp", "fsdp"):
        Trainer(config(kind), folder / f"{kind}-begun", bars=False).run(resume=True)
    return folder


@pytest.mark.parametrize("file", [BEST, LAST])
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("run", ["{}", "{}-begun", "begun-alone-{}"])
def test_two_processes_end_where_one_ends(folder: Path, run: str, kind: str, file: str) -> None:
    expected, facts = checkpoint.read(folder / "alone" / file)
    got, ours = checkpoint.read(folder / run.format(kind) / file)
    assert ours["config"]["training"].pop("parallel") == kind
    del facts["config"]["training"]["parallel"]
    assert ours["config"] == facts["config"]
    assert len(expected) == len(got) > 5
    for name, tensor in expected.items():
        if not name.startswith("random/"):  # of the first process alone
            torch.testing.assert_close(got[name], tensor, rtol=1e-4, atol=1e-5)


def test_the_run_learned_and_every_process_found_one_result(folder: Path) -> None:
    results = [
        checkpoint.read(folder / run / LAST)[1]["progress"]["history"] for run in ("alone", "ddp", "fsdp")
    ]
    assert results[0][-1]["loss"] < results[0][0]["loss"]
    for history in results[1:]:
        for epoch, expected in zip(history, results[0], strict=True):
            assert epoch["loss"] == pytest.approx(expected["loss"], rel=1e-4)
            assert epoch["validation_accuracy"] == expected["validation_accuracy"]


@pytest.mark.slow
def test_the_command_line_trains_in_two_processes_and_says_so_once(tmp_path: Path) -> None:
    settings = ["network.hidden=[12,10,8]", "training.epochs=1", "data.limit=150", "training.device=cpu"]
    overrides = [word for setting in settings for word in ("--set", setting)]
    ran = in_two(
        ["-m", "mfp_neurons", "train", "digits-mfp", "--out", "run", "--quiet", *overrides], tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("test accuracy") == 1
    assert "batch norms take the statistics of each process's share" in ran.stderr
    assert main(["evaluate", str(tmp_path / "run" / BEST)]) == 0


def test_a_batch_too_small_for_all_processes_is_refused() -> None:
    check_batches(64, 32, Processes(0, 32))
    with pytest.raises(ConfigError, match="the last batch of 65 samples has 1, too few for 2 processes"):
        check_batches(65, 32, Processes(0, 2))


def test_other_commands_are_refused_in_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["doctor"]) == 2
    assert "start this one without torchrun" in capsys.readouterr().err


if __name__ == "__main__":
    work(Path(sys.argv[1]))
