"""Sends the numbers of a run to TensorBoard and to Weights & Biases while it trains, as the config says."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mfp_neurons._checks import require
from mfp_neurons._files import write_bytes
from mfp_neurons.train.config import Config


class Loggers:
    """Those that a config asks for, maybe none.

    Args:
        config: ``training.tensorboard``, and ``training.wandb``, the name of a project.
        out: folder of the run; TensorBoard's and W&B's files go there.

    Raises:
        MissingDependency: one that is asked for is not installed.
    """

    def __init__(self, config: Config, out: Path) -> None:
        settings = config.training
        self._tensorboard: Any = None
        self._wandb: Any = None
        if settings.tensorboard:
            require("tensorboard", "train")  # torch names no extra when it is missing
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(out / "tensorboard"))
        if settings.wandb:
            wandb = require("wandb", "wandb")
            self._wandb = wandb.init(
                project=settings.wandb,
                id=_kept_id(out / "wandb-id"),
                name=out.name,
                dir=out,
                config=config.as_dict(),
                resume="allow",
            )

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """One point of each curve."""
        if self._tensorboard is not None:
            for name, value in numbers.items():
                self._tensorboard.add_scalar(name, value, epoch)
            self._tensorboard.flush()
        if self._wandb is not None:
            self._wandb.log(dict(numbers), step=epoch, commit=True)

    def close(self, summary: Mapping[str, float]) -> None:
        """Ends the run with what came out of it."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.summary.update(dict(summary))
            self._wandb.finish()


def _kept_id(path: Path) -> str:
    """W&B's name of the run in this folder: the same however often it is resumed."""
    if not path.exists():
        write_bytes(path, uuid.uuid4().hex[:8].encode())
    return path.read_text()
