"""A run that is killed and resumed ends exactly where an uninterrupted one ends."""

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
from mfp_neurons.train.engine import BEST, LAST, Trainer

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


def stepped(config: Config, **training: Any) -> Config:
    settings = config.as_dict()
    settings["training"].update(training)
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


@pytest.mark.parametrize("moment", range(0, 26, 3))
def test_a_stop_at_any_moment_changes_nothing_in_the_end(
    tmp_path: Path, small: Config, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    config = stepped(small, checkpoint_steps=2)
    Trainer(config, tmp_path / "whole", bars=False).run()
    stop_and_resume(config, tmp_path / "stopped", monkeypatch, moment)
    ends_alike(tmp_path / "whole", tmp_path / "stopped")


OFTEN = {**SMALL, "training.epochs": 3, "training.checkpoint_steps": 1}


def start(folder: Path) -> "subprocess.Popen[bytes]":
    sets = [word for key, value in OFTEN.items() for word in ("--set", f"{key}={value}")]
    words = ["train", "digits-mfp", "--quiet", "--resume", "--out", str(folder), *sets]
    return subprocess.Popen(
        [sys.executable, "-m", "mfp_neurons", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def changed(path: Path, before: int) -> bool:
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
        while process.poll() is None and not changed(last, before):
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


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path, small: Config) -> None:
    Trainer(small, tmp_path, bars=False).run()
    before = (tmp_path / LAST).read_bytes()
    with pytest.raises(ConfigError, match="holds a run already: resume it"):
        Trainer(small, tmp_path, bars=False).run()
    with pytest.raises(ConfigError, match="was written by another config"):
        Trainer(stepped(small, epochs=9), tmp_path, bars=False).run(resume=True)
    assert (tmp_path / LAST).read_bytes() == before


def test_resuming_a_finished_run_gives_its_result_again(tmp_path: Path, small: Config) -> None:
    first = Trainer(small, tmp_path, bars=False).run()
    assert Trainer(small, tmp_path, bars=False).run(resume=True) == first
