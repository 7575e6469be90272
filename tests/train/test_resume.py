"""A run that is killed and resumed ends exactly where an uninterrupted one ends."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mfp_neurons.train import checkpoint
from mfp_neurons.train.config import Config, ConfigError, from_dict, load
from mfp_neurons.train.engine import BEST, LAST, RESULT, Trainer

from .conftest import SMALL


def ends_alike(folder: Path, other: Path) -> None:
    """The files of two finished runs are equal to the byte, but for the time they took."""
    assert (folder / BEST).read_bytes() == (other / BEST).read_bytes()
    (tensors, facts), (tensors_2, facts_2) = (checkpoint.read(f / LAST) for f in (folder, other))
    assert tensors.keys() == tensors_2.keys()
    assert all(torch.equal(tensors[name], tensors_2[name]) for name in tensors)
    for found in (facts, facts_2):
        found["progress"].pop("seconds")
    assert facts == facts_2


class Killed(BaseException):
    """Stands for the moment at which a process stops to exist."""


def changed(config: Config, **training: Any) -> Config:
    settings = config.as_dict()
    settings["training"].update(training)
    return from_dict(settings)


def fitted(config: Config, **training: Any) -> Config:
    """The config with orders that are fitted while it trains."""
    chosen = {"epochs": 3, "fit_orders_bits": 1.5, "checkpoint_steps": 2, **training}
    settings = changed(config, **chosen).as_dict()
    settings["network"]["neuron"].update(kind="fir", order=0, kernel_bits="pow2")
    return from_dict(settings)


def stop_and_resume(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """A run ends at an optimizer step, or before or after a file is put in place, and goes on."""
    left = moment
    replace, step = os.replace, Trainer.step

    def tick() -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1

    def ticking_replace(source: Any, target: Any) -> None:
        tick()
        replace(source, target)
        tick()

    def ticking_step(self: Trainer, picked: torch.Tensor) -> float:
        tick()
        return step(self, picked)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", ticking_replace)
        patch.setattr(Trainer, "step", ticking_step)
        with pytest.raises(Killed):
            Trainer(config, folder, bars=False).run()
    torch.manual_seed(1234)  # another process has another state of everything
    Trainer(config, folder, bars=False).run(resume=True)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Config, Path]]:
    """A finished run of a config as it is, and one that fits orders on the way."""
    small = load("digits-mfp", SMALL)
    phases = {"data.reading": "repeat", "network.neuron.order": 3, "network.hidden": [8, 8]}
    configs = {
        "plain": changed(small, checkpoint_steps=2),
        "orders": fitted(small, fit_orders_by="loss"),
        "phases": changed(
            load("digits-mfp", SMALL | phases), epochs=3, checkpoint_steps=2, float_epochs=1, short_epochs=2
        ),
    }
    folder = tmp_path_factory.mktemp("uninterrupted")
    for name, config in configs.items():
        Trainer(config, folder / name, bars=False).run()
    return {name: (config, folder / name) for name, config in configs.items()}


MOMENTS = [("plain", moment) for moment in range(0, 26, 3)]
MOMENTS += [(kind, moment) for kind in ("orders", "phases") for moment in range(4, 26, 4)]


@pytest.mark.parametrize(("kind", "moment"), MOMENTS)
def test_a_stop_at_any_moment_changes_nothing_in_the_end(
    tmp_path: Path,
    uninterrupted: dict[str, tuple[Config, Path]],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    moment: int,
) -> None:
    config, folder = uninterrupted[kind]
    stop_and_resume(config, tmp_path, monkeypatch, moment)
    ends_alike(folder, tmp_path)
    _, facts = checkpoint.read(tmp_path / LAST)
    assert bool(facts["progress"]["orders"]) == (kind == "orders")


OFTEN = {**SMALL, "training.epochs": 3, "training.checkpoint_steps": 1}


def start(folder: Path) -> "subprocess.Popen[bytes]":
    sets = [word for key, value in OFTEN.items() for word in ("--set", f"{key}={value}")]
    words = ["train", "digits-mfp", "--quiet", "--resume", "--out", str(folder), *sets]
    return subprocess.Popen(
        [sys.executable, "-m", "mfp_neurons", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def rewritten(path: Path, before: int) -> bool:
    return path.exists() and path.stat().st_mtime_ns != before


@pytest.mark.slow
def test_a_process_killed_at_random_moments_ends_bit_identical_to_one_that_ran_through(
    tmp_path: Path,
) -> None:
    Trainer(load("digits-mfp", OFTEN), tmp_path / "whole", bars=False).run()
    random.seed()  # other moments each time
    kills = 0
    for _ in range(3):
        last = tmp_path / "killed" / LAST
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = start(tmp_path / "killed")
        while process.poll() is None and not rewritten(last, before):
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        assert process.stderr is not None
        process.stderr.close()
    assert kills >= 1, "every process was done before it could be killed"
    _, errors = (process := start(tmp_path / "killed")).communicate()
    assert process.returncode == 0, errors.decode()
    ends_alike(tmp_path / "whole", tmp_path / "killed")


def test_a_folder_that_holds_a_run_is_not_overwritten_and_gives_its_result_again(
    trained: Path, small: Config
) -> None:
    before = (trained / LAST).read_bytes()
    with pytest.raises(ConfigError, match="holds a run already: resume it"):
        Trainer(small, trained, bars=False).run()
    with pytest.raises(ConfigError, match="was written by another config"):
        Trainer(changed(small, epochs=9), trained, bars=False).run(resume=True)
    assert (trained / LAST).read_bytes() == before
    result = json.loads((trained / RESULT).read_text())
    again = Trainer(small, trained, bars=False).run(resume=True)
    assert json.loads(json.dumps(again)) == result
