"""What a run shows while it trains is what its result says, read back with the tools themselves."""

import json
from pathlib import Path
from typing import Any

import pytest

from mfp_neurons.train.config import load
from mfp_neurons.train.engine import RESULT, Trainer

from .conftest import SMALL


def trained(out: Path, **settings: Any) -> dict[str, Any]:
    chosen = {f"training.{key}": value for key, value in settings.items()}
    Trainer(load("digits-mfp", {**SMALL, **chosen}), out, bars=False).run()
    found: dict[str, Any] = json.loads((out / RESULT).read_text())
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TensorBoard's own
def test_tensorboard_gets_every_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = trained(tmp_path, tensorboard=True)["history"]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name, key in (("loss", "loss"), ("validation accuracy", "validation_accuracy")):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(e["epoch"] + 1, pytest.approx(e[key])) for e in history]


@pytest.mark.filterwarnings("ignore")  # Weights & Biases' own
def test_weights_and_biases_gets_every_epoch_the_config_and_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    begun: list[Any] = []
    ended: list[dict[str, Any]] = []
    init, finish = wandb.init, wandb.Run.finish
    monkeypatch.setattr(wandb, "init", lambda **given: begun.append(init(**given)) or begun[-1])
    # after finish, a run no longer knows what it was told
    monkeypatch.setattr(
        wandb.Run,
        "finish",
        lambda run: ended.append({**run.summary, "config": dict(run.config)}) or finish(run),
    )
    result = trained(tmp_path / "run", wandb="mfp")
    (run,), (told,) = begun, ended
    assert (run.project, run.name, run.id) == ("mfp", "run", (tmp_path / "run" / "wandb-id").read_text())
    assert told["config"]["network"]["hidden"] == SMALL["network.hidden"]
    assert told["test accuracy"] == result["test_accuracy"]
    last = result["history"][-1]
    assert told["_step"] == len(result["history"])
    assert told["loss"] == pytest.approx(last["loss"])
    assert told["validation accuracy"] == pytest.approx(last["validation_accuracy"])
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
