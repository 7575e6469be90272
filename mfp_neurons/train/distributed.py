"""Training in several processes, as ``torchrun`` starts them: each computes its share of every batch.

Everything here is the identity in one process. With more of them the batch of the config is still the batch
of a step, so a run's result does not depend, up to rounding, on how many processes computed it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mfp_neurons._checks import log_once
from mfp_neurons.train.config import ConfigError

__all__ = ["Processes", "joined"]


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; ``Processes()`` is one alone."""

    rank: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> "Processes":
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this one writes the files and draws the bars."""
        return self.rank == 0

    def share(self, picked: Tensor) -> Tensor:
        """This process's part of a batch: every ``count``-th sample."""
        return picked[self.rank :: self.count]

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, the same in each."""
        if self.count > 1:
            dist.all_reduce(value)
        return value

    def wait(self) -> None:
        """Until all are here: what the first has written can be read."""
        if self.count > 1:
            dist.barrier()

    @contextmanager
    def own_randomness(self, seed: int, step: int, device: torch.device) -> Iterator[None]:
        """Dropout that differs between processes and follows from seed and step alone."""
        if self.count == 1:
            yield
            return
        # what all processes draw alike (the batches, how images are moved) goes on from the state outside
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed((seed * 1_000_003 + step) * self.count + self.rank)
            yield


def launched() -> bool:
    """Whether torchrun, or another launcher of its habits, started this process among others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined() -> Iterator[Processes]:
    """Meets the other processes, over NCCL where there are GPUs, otherwise over gloo; parts at the end."""
    if not launched():
        yield Processes()
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Processes.here()
    finally:
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The GPU of this process, where several of them train on "cuda"."""
    if device.type == "cuda" and device.index is None and launched():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    return device


def check_batches(samples: int, batch_size: int, processes: Processes) -> None:
    # a process without a sample would leave the others waiting for its gradients
    smallest = samples % batch_size or batch_size
    if smallest < processes.count:
        raise ConfigError(
            f"training.batch_size = {batch_size}: the last batch of {samples:,} samples has {smallest}, too "
            f"few for {processes.count} processes; give another batch_size, or data.limit"
        )


def synchronized(module: nn.Module, device: torch.device, processes: Processes) -> nn.Module:
    """Batch norms that see the whole batch, where PyTorch has them: not on a CPU."""
    if processes.count == 1 or not any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules()
    ):
        return module
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-any-return]
    log_once(
        "sync-batch-norm",
        "batch norms take the statistics of each process's share of a batch, not of the whole: PyTorch's "
        "SyncBatchNorm runs on GPUs alone",
    )
    return module


def replicated(module: nn.Module, device: torch.device, processes: Processes) -> nn.Module:
    """``module`` with gradients averaged over the processes (DDP)."""
    if processes.count == 1:
        return module
    return nn.parallel.DistributedDataParallel(module, [device] if device.type == "cuda" else None)


def shard(module: nn.Module, device: torch.device, processes: Processes) -> None:
    """Splits parameters, gradients and the optimizer's state over the processes, in place (FSDP2).

    Weights come together for their own layer's forward and backward, all other parameters for the whole
    network's: a neuron reads taps and thresholds of modules that are not called themselves.
    """
    if processes.count == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes.count,))
    # the layers first: FSDP2 gives a module the parameters below it that no other has taken yet
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)):
            fully_shard(part, mesh=mesh)
    fully_shard(module, mesh=mesh)


def unsharded(state: Any) -> Any:
    """Nested state with every split tensor put together; a call of all processes."""
    if isinstance(state, dict):
        return {k: unsharded(v) for k, v in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(unsharded(v) for v in state)
    return state.full_tensor() if hasattr(state, "full_tensor") else state


def load_module(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """``module.load_state_dict``, of whole tensors into what may be split."""
    own = module.state_dict()
    module.load_state_dict({k: _sharded_as(own[k], v) if k in own else v for k, v in tensors.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """``optimizer.load_state_dict``, of whole tensors into what may be split."""
    # PyTorch numbers parameters in this order in the state of an optimizer
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sharded = {
        number: {k: _sharded_as(parameters[int(number)], v) for k, v in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": sharded})


def _sharded_as(own: Any, value: Any) -> Any:
    """``value`` split as ``own`` is, if it has its shape."""
    if not hasattr(own, "full_tensor") or not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
