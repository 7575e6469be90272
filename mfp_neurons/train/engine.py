"""Training: one loop over a data set in memory, which can be stopped at any moment and resumed exactly."""

import math
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mfp_neurons import __version__
from mfp_neurons._checks import require
from mfp_neurons.orders import fit_orders, late_taps, truncate
from mfp_neurons.quantize.layers import use_float_weights
from mfp_neurons.reporting import report
from mfp_neurons.train import checkpoint, distributed, network
from mfp_neurons.train import data as data_module
from mfp_neurons.train.config import Config, ConfigError, from_dict
from mfp_neurons.train.data import Data, Split, vary
from mfp_neurons.train.distributed import Processes
from mfp_neurons.train.loggers import Loggers

__all__ = ["Progress", "Trainer", "accuracies", "load_network", "save_network"]

LAST, BEST, RESULT = "last.safetensors", "best.safetensors", "result.json"
EVALUATION_BATCH = 500
ORDERS_BATCH = 500  # training samples on which losses of orders are measured


def squared_distance(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean squared distance of scores [N, classes] from the labels' one-hot vectors."""
    return nn.functional.mse_loss(scores, nn.functional.one_hot(labels, scores.shape[1]).to(scores))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": nn.functional.cross_entropy,
    "mse": squared_distance,
}


@dataclass
class Progress:
    """How far a run has got; every checkpoint contains all of it."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch already trained on
    loss_sum: float = 0.0
    seconds: float = 0.0  # spent training, evaluation left out
    best_accuracy: float = -1.0
    orders: dict[str, int] | None = None  # found by now, module path to order
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """One run of one config in one folder, in this process or in all that ``distributed.joined`` meets.

    Args:
        config: what to train, on what, how.
        out: folder for ``last.safetensors`` (everything needed to go on), ``best.safetensors`` (the network
            of the best epoch by validation) and ``result.json``, written when the run is complete.
        data: a loaded data set to share between runs; None loads ``config.data``.
        bars: whether to draw progress bars.
    """

    def __init__(self, config: Config, out: Path, data: Data | None = None, *, bars: bool = True):
        self.processes = Processes.here()
        self.config, self.out, self.bars = config, Path(out), bars and self.processes.first
        if config.training.threads:
            torch.set_num_threads(config.training.threads)
        self.device = pick_device(config.training.device)
        self.data = (data or data_module.load(config.data)).to(self.device)
        # from here on everything random follows from the seed: weights, then dropout and how images are moved
        checkpoint.seed_everything(config.training.seed)
        module = network.build(config.network, self.data.features, self.data.classes, self.data.steps)
        _check_orders(config, module, self.processes)
        self.network = distributed.synchronized(module.to(self.device), self.device, self.processes)
        self.model = self._parallel()
        # made after sharding, which replaces the parameters that an optimizer holds on to
        self.optimizer = make_optimizer(self.network, config, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.training.amp == "float16")
        self.progress = Progress()
        self.batches = math.ceil(len(self.data.train) / config.training.batch_size)
        _check_images(config, self.data)
        distributed.check_batches(len(self.data.train), config.training.batch_size, self.processes)

    def _parallel(self) -> nn.Module:
        """What a training step calls: the network, compiled and over all processes as the config says."""
        settings, model = self.config.training, self.network
        # FSDP2 replaces parameters, so it comes before the compiler; DDP wraps what the compiler returns
        if settings.parallel == "fsdp":
            distributed.shard(model, self.device, self.processes)
        if settings.compile != "off":
            model = torch.compile(model, mode=settings.compile)  # type: ignore[assignment]
        if settings.parallel == "ddp":
            model = distributed.replicated(model, self.device, self.processes)
        return model

    def run(self, *, resume: bool = False) -> dict[str, Any]:
        """Trains to the end, evaluates the best checkpoint and returns (and writes) the result.

        With ``resume``, goes on from ``last.safetensors`` if there is one; on the CPU the outcome is then
        bit-identical to that of a run that never stopped.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        if (self.out / LAST).exists():
            if not resume:
                raise ConfigError(
                    f"{self.out} holds a run already: resume it (--resume), or name another folder (--out)"
                )
            self._restore()
        loggers = Loggers(self.config, self.out) if self.processes.first else None
        for _ in range(self.progress.epoch, self.config.training.epochs):
            self._fit_orders_when_due()
            self._epoch()
            if loggers is not None:
                last = self.progress.history[-1]
                curves = {"loss": last["loss"], "validation accuracy": last["validation_accuracy"]}
                loggers.log(self.progress.epoch, curves)
        result = self._result()
        if loggers is not None:
            checkpoint.write_json(self.out / RESULT, result)
            loggers.close({"test accuracy": result["test_accuracy"], "state bits": result["state_bits"]})
        return result

    def _epoch(self) -> None:
        progress, settings = self.progress, self.config.training
        self.network.train()
        use_float_weights(self.network, self._is_in_floats)
        # a run that was stopped within an epoch skips the batches that it had trained on
        with bar(self.batches, f"epoch {progress.epoch + 1}/{settings.epochs}", self.bars) as shown:
            shown.update(progress.batch)
            for picked in self.order()[progress.batch :]:
                start = time.perf_counter()
                loss = self.step(picked)
                progress.seconds += time.perf_counter() - start
                progress.loss_sum += loss * len(picked)
                progress.batch += 1
                shown.update()
                if progress.batch % 20 == 0:
                    shown.set_postfix(loss=f"{loss:.3f}")
                if settings.checkpoint_steps and progress.batch % settings.checkpoint_steps == 0:
                    self._save_last()
        self._end_epoch()

    @property
    def _is_in_floats(self) -> bool:
        return self.progress.epoch < self.config.training.float_epochs

    def _fit_orders_when_due(self) -> None:
        progress, settings = self.progress, self.config.training
        fitted = progress.orders is not None
        if not settings.fit_orders_bits or fitted or progress.epoch < settings.fit_orders_epoch:
            return
        progress.orders = fit_orders(
            self.network,
            self.data.sequence(self.data.train.samples[:1]),
            state_bits=settings.fit_orders_bits,
            loss=self._loss_of_orders if settings.fit_orders_by == "loss" else None,
            optimizer=self.optimizer,
        )
        progress.best_accuracy = -1.0  # the best network is one within the budget

    def _loss_of_orders(self, module: nn.Module) -> Tensor:
        split = self.data.train
        with autocast(self.device, self.config.training.amp):
            scores = module(self.data.sequence(split.samples[:ORDERS_BATCH]))
        return self.loss(scores, split.labels[:ORDERS_BATCH])

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Of scores [T, N, classes], as training takes it."""
        last = self.config.readout.train
        return LOSSES[self.config.training.loss](scores[-last:].float().mean(0), labels)

    def order(self) -> tuple[Tensor, ...]:
        """Batches of indices for this epoch: a function of seed and epoch alone, so resuming finds it."""
        generator = torch.Generator().manual_seed(self.config.training.seed * 1_000_003 + self.progress.epoch)
        order = torch.randperm(len(self.data.train), generator=generator)
        return order.to(self.device).split(self.config.training.batch_size)

    def step(self, picked: Tensor) -> float:
        """One optimizer step on the training samples with these indices; returns the loss."""
        settings, split = self.config.training, self.data.train
        short = self.progress.epoch < settings.short_epochs
        data = replace(self.data, time_steps=1) if short else self.data
        # the rate follows from the number of the step alone, so a resumed run needs no state of a scheduler
        step, steps = self.progress.epoch * self.batches + self.progress.batch, settings.epochs * self.batches
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule(step / steps, settings.warmup)
        samples, own = split.samples[picked], self.processes.share(picked)
        if settings.shift or settings.flip:  # of the whole batch: all processes draw the same
            samples = vary(samples, settings.shift, settings.flip)
        with (
            autocast(self.device, settings.amp),
            self.processes.own_randomness(settings.seed, step, self.device),
        ):
            scores = self.model(data.sequence(self.processes.share(samples)))
        # the mean over the processes, which DDP and FSDP take of gradients, is then that over the batch
        weight = len(own) * self.processes.count / len(picked)
        loss = weight * self.loss(scores, split.labels[own])
        # once orders are fitted, late taps are gone and the penalty has done its work
        if settings.late_tap_penalty and self.progress.orders is None:
            loss = loss + settings.late_tap_penalty * late_taps(self.network)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if settings.clip:  # of the true gradients: the scaler multiplies the loss
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.processes.sum(loss.detach()).item() / self.processes.count

    def _end_epoch(self) -> None:
        progress = self.progress
        accuracies = self.accuracies(self.data.validation)
        steps, accuracy = best_readout(accuracies)
        loss = progress.loss_sum / len(self.data.train)
        progress.history.append(
            {"epoch": progress.epoch, "loss": loss, "validation_accuracy": accuracy, "readout_steps": steps}
        )
        improved = accuracy > progress.best_accuracy and not self._is_in_floats
        if improved:
            progress.best_accuracy = accuracy
        progress.epoch, progress.batch, progress.loss_sum = progress.epoch + 1, 0, 0.0
        if improved:  # before LAST: a kill in between repeats the epoch and writes the same file again
            self._save_best({**progress.history[-1], "orders": progress.orders})
        self._save_last()

    def accuracies(self, split: Split) -> dict[int, float]:
        """Percent right for each candidate read-out, by its number of last steps."""
        return accuracies(self.model, self.network, self.data, split, self.config)

    def _result(self) -> dict[str, Any]:
        self.processes.wait()  # the first one writes the best network, and all read it here
        tensors, facts = checkpoint.read(self.out / BEST)
        distributed.load_module(self.network, tensors)
        by_steps = self.accuracies(self.data.test)
        # the report counts whole parameters, and here they may be split over processes: it gets a plain copy
        best, *_ = load_network(self.out / BEST, data=self.data)
        one = self.data.sequence(self.data.test.samples[:1])
        epochs = self.config.training.epochs
        return {
            "config": self.config.as_dict(),
            "best_epoch": facts["epoch"],
            "readout_steps": facts["readout_steps"],
            "validation_accuracy": facts["validation_accuracy"],
            "test_accuracy": by_steps[facts["readout_steps"]],
            "test_accuracy_by_readout": {str(k): v for k, v in by_steps.items()},
            "orders": self.progress.orders,
            "state_bits": report(best.to(self.device), one).state_bits_per_neuron,
            "seconds_per_epoch": self.progress.seconds / epochs,
            "milliseconds_per_step": 1e3 * self.progress.seconds / (epochs * self.batches),
            "training_samples": len(self.data.train),
            "history": self.progress.history,
        }

    def _save_best(self, facts: dict[str, Any]) -> None:
        tensors = distributed.unsharded(self.network.state_dict())
        if self.processes.first:
            save_network(self.out / BEST, tensors, self.config, facts)

    def _save_last(self) -> None:
        tensors: dict[str, Tensor] = {}
        state = {
            "network": distributed.unsharded(self.network.state_dict()),
            "optimizer": distributed.unsharded(self.optimizer.state_dict()),
            "scaler": self.scaler.state_dict(),
            "random": checkpoint.random_state(),
        }
        if not self.processes.first:  # putting split tensors together, above, was a call of all processes
            return
        twin = checkpoint.flatten(state, "", tensors)
        facts = {
            "kind": "training",
            "config": self.config.as_dict(),
            "progress": vars(self.progress),
            "state": twin,
        }
        checkpoint.save(self.out / LAST, tensors, facts)

    def _restore(self) -> None:
        tensors, facts = checkpoint.read(self.out / LAST)
        if from_dict(facts["config"]) != self.config:
            raise ConfigError(
                f"{self.out / LAST} was written by another config; resume with the one it was started with"
            )
        state = checkpoint.unflatten(facts["state"], tensors)
        self.progress = Progress(**facts["progress"])
        # orders that were fitted make parameters smaller: before the state is read into them
        truncate(self.network, self.progress.orders or {})
        distributed.load_module(self.network, state["network"])
        distributed.load_optimizer(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        checkpoint.set_random_state(state["random"])


def _check_orders(config: Config, module: nn.Module, processes: Processes) -> None:
    """Raises unless the network has orders to be fitted, where the config asks for that."""
    if config.training.fit_orders_bits or config.training.late_tap_penalty:
        if processes.count > 1:
            raise ConfigError(
                f"training.fit_orders_bits, training.late_tap_penalty: orders are fitted in one process, and "
                f"here are {processes.count}; fit them first, then train with network.neuron.order"
            )
        try:
            late_taps(module)
        except ValueError as error:
            raise ConfigError(f"training.fit_orders_bits, training.late_tap_penalty: {error}") from None


@torch.no_grad()
def accuracies(
    model: nn.Module, module: nn.Module, data: Data, split: Split, config: Config
) -> dict[int, float]:
    """Percent of a split classified right, for each candidate read-out; ``module`` is put into eval mode."""
    module.eval()
    processes = Processes.here()
    candidates = _readouts(config, data)
    right = torch.zeros(len(candidates), dtype=torch.int64, device=split.labels.device)
    for samples, labels in batches(split, EVALUATION_BATCH):
        own = processes.share(torch.arange(len(labels), device=labels.device))
        shown = own if len(own) else own.new_zeros(1)  # all processes call a split network alike
        with autocast(split.labels.device, config.training.amp):
            scores = model(data.sequence(samples[shown])).float()[:, : len(own)]
        # one run of the network serves every candidate
        right += torch.stack([(scores[-k:].mean(0).argmax(1) == labels[own]).sum() for k in candidates])
    return {k: 100 * n / len(split) for k, n in zip(candidates, processes.sum(right).tolist(), strict=True)}


def best_readout(by_steps: dict[int, float]) -> tuple[int, float]:
    """The number of last steps with the best accuracy, the fewest of equals, and that accuracy."""
    return max(by_steps.items(), key=lambda item: (item[1], -item[0]))  # fewer steps answer sooner


def batches(split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(split.samples.split(size), split.labels.split(size), strict=True)


def schedule(done: float, warmup: float) -> float:
    """Share of the peak learning rate when ``done`` of all steps (0 to 1) are over: line up, cosine down."""
    if done < warmup:  # 1e-3: the very first step moves the weights too
        return (done + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def _check_images(config: Config, data: Data) -> None:
    shift, flip = config.training.shift, config.training.flip
    if config.training.short_epochs and data.reading != "repeat":
        raise ConfigError(
            f"training.short_epochs = {config.training.short_epochs}: only images that are shown at every "
            f"step can be shown at one, and data.reading is {data.reading!r}; give 0"
        )
    if (shift or flip) and data.reading != "repeat":
        raise ConfigError(
            f"training.shift = {shift!r}, flip = {flip!r}: only images that are shown at every step can be "
            f"moved or mirrored, and data.reading is {data.reading!r}; give 0 and false"
        )


def make_optimizer(module: nn.Module, config: Config, device: torch.device) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices alone, not on batch norms, taps, decays or scales."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        (matrices if name.endswith("weight") and parameter.dim() > 1 else rest).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": config.training.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.training.learning_rate, fused=device.type in ("cpu", "cuda"))


def pick_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=distributed.local_device(torch.device(name))).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"training.device = {name!r} is not usable here: {error}") from None


def autocast(device: torch.device, amp: str) -> torch.autocast:
    dtype = torch.float16 if amp == "float16" else torch.bfloat16  # "off" needs some dtype, unused
    return torch.autocast(device.type, dtype, enabled=amp != "off")


def bar(total: int, name: str, shown: bool) -> Any:
    """A progress bar on standard error."""
    return require("tqdm", "train").tqdm(
        total=total, desc=name, disable=not shown, leave=False, smoothing=0.1
    )


def save_network(path: Path, tensors: dict[str, Tensor], config: Config, facts: dict[str, Any]) -> None:
    """A checkpoint of weights alone, with the config that rebuilds the network around them."""
    facts = {"kind": "network", "version": __version__, "config": config.as_dict(), **facts}
    checkpoint.save(path, tensors, facts)


def load_network(
    path: Path, data_root: str | None = None, data: Data | None = None
) -> tuple[nn.Module, Data, Config, dict[str, Any]]:
    """The network of a checkpoint in eval mode, its data set, its config and the facts stored with it.

    Args:
        path: a checkpoint that :func:`save_network` wrote.
        data_root: where the data set is now, if not where it was in training.
        data: the data set, if it is loaded already.

    Raises:
        CheckpointError: the file is no checkpoint of a network, or not of one that this version builds on
            this data set.
        ConfigError: the data set is not where it was looked for.
    """
    tensors, facts = checkpoint.read(path)
    if facts.get("kind") == "training":
        raise checkpoint.CheckpointError(f"{path} is a training state; give the {BEST} beside it")
    written_by = (
        f"It was written by mfp-neurons {facts.get('version', 'of an older version')}, this is {__version__}"
    )
    try:
        config = from_dict(facts["config"])
        chosen = facts["readout_steps"]
    except KeyError as error:
        raise checkpoint.CheckpointError(f"{path}: its header has no {error}. {written_by}") from None
    except ConfigError as error:
        raise checkpoint.CheckpointError(
            f"{path} has a config that this version does not read: {error}. {written_by}"
        ) from None
    if data_root is not None:
        config = replace(config, data=replace(config.data, root=data_root))
    data = data or data_module.load(config.data)
    try:
        module = network.build(config.network, data.features, data.classes, data.steps)
        # the config has the orders of the beginning; a run that fitted them has saved shorter taps
        truncate(module, facts.get("orders") or {})
        module.load_state_dict(tensors)
    except (RuntimeError, ValueError) as error:
        raise checkpoint.CheckpointError(
            f"{path} is not the network that its config describes for the data set {config.data.name!r}: "
            f"{textwrap.shorten(str(error), 400).rstrip('.')}. {written_by}"
        ) from error
    accepted = _readouts(config, data)
    if chosen not in accepted:
        raise checkpoint.CheckpointError(
            f"{path}: readout_steps = {chosen!r} is none of {accepted}. {written_by}"
        )
    return module.eval(), data, config, facts


def _readouts(config: Config, data: Data) -> list[int]:
    """Over how many last steps scores may be averaged."""
    return sorted({min(k, data.steps) for k in config.readout.candidates})
