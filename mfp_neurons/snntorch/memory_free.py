"""What both snnTorch neurons share beside their kernel: arguments, checkpoints, returns."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Unpack

import snntorch as snn
import torch
from torch import Tensor, nn

from .._checks import check_finite, check_threshold, describe, log_once
from .._reset import check_samples, sample_mask
from ..history import Kernel
from ..neuron import HistoryKernel, shows_kernel_options
from ..spec import KernelOptions, NeuronSpec, StateNames
from .kernel import BetaKernel, checked_kernel, operands, per_channel
from .network import unlist
from .surrogates import own_spike_grad

_NONE = snn.SpikingNeuron.reset_dict["none"]


class MemoryFree(snn.LIF):  # type: ignore[misc, name-defined]
    """Arguments, kernel and checkpoint rules of both neurons; snnTorch's constructors do the rest."""

    beta: Tensor
    threshold: Tensor
    graded_spikes_factor: Tensor
    reset_mechanism_val: Tensor
    mem: Tensor
    gain: Tensor | float

    @shows_kernel_options
    def __init__(
        self,
        beta: Any,
        threshold: Any = 1.0,
        spike_grad: Any = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "none",
        state_quant: Any = False,
        output: bool = False,
        graded_spikes_factor: Any = 1.0,
        learn_graded_spikes_factor: bool = False,
        reset_delay: bool = True,
        *,
        gain: Any = 1.0,
        **options: Unpack[KernelOptions],
    ) -> None:
        # snnTorch lists an instance before it looks at its arguments, so everything is checked before that
        check_reset_mechanism(reset_mechanism)
        is_finite = options.get("kernel", "exp") != "exp" or options.get("order") is not None
        self._check_can_run(inhibition, state_quant, is_finite)
        beta, gain = real("beta", beta), real("gain", gain)
        threshold = real("threshold", threshold, check_threshold)
        graded_spikes_factor = real("graded_spikes_factor", graded_spikes_factor)
        spike_grad = own_spike_grad(spike_grad)
        beta = per_channel(beta, options)
        kernel = checked_kernel(self, beta, gain, learn_beta, options)
        try:
            super().__init__(
                beta,
                threshold,
                spike_grad,
                surrogate_disable,
                init_hidden,
                inhibition,
                learn_beta,
                learn_threshold,
                "none",
                state_quant,
                output,
                graded_spikes_factor,
                learn_graded_spikes_factor,
            )
        except BaseException:  # such as a warning that the user made an error
            unlist(lambda neuron: neuron is self)
            raise
        self.reset_delay = reset_delay  # accepted for snn.Leaky's sake: without a reset nothing is delayed
        self.order, self.stride = kernel.order, kernel.stride
        self.num_channels, self.kernel_bits = kernel.num_channels, kernel.kernel_bits
        # a buffer, which moves with the module; without a gain there is none, as in snn.Leaky's state dict
        if isinstance(gain, Tensor) or gain != 1.0:
            self.register_buffer("gain", torch.as_tensor(gain))
        else:
            self.gain = 1.0
        if kernel.kind != "exp":
            self._modules["kernel"] = kernel  # add_module refuses the name of the property below
        self._init_state()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, own_spike_grad(value) if name == "spike_grad" else value)

    @classmethod
    def _check_can_run(cls, inhibition: bool, state_quant: Any, finite: bool) -> None:
        if state_quant and not callable(state_quant):
            raise TypeError(
                f"state_quant must be False or a function of tensors, got {describe(state_quant)}"
            )

    def _init_state(self) -> None:
        """What is kept between calls, besides what snnTorch's constructors registered."""

    @property
    def kernel(self) -> BetaKernel | HistoryKernel:
        """The history kernel; calling it gives its value (:mod:`mfp_neurons.history`) now."""
        free = self._modules.get("kernel")
        if isinstance(free, HistoryKernel):
            return free
        learnable = isinstance(self.beta, nn.Parameter)
        return BetaKernel(
            self.beta, self.gain, self.order, self.kernel_bits, self.num_channels, learnable, self.stride
        )

    def neuron_spec(self) -> NeuronSpec:
        """What this neuron computes and keeps, for whoever reads a model."""
        kernel = self.kernel
        return NeuronSpec(
            kernel=kernel,
            carried=kernel.carried(),
            threshold=self.threshold,
            surrogate=self.spike_grad,
            surrogate_argument="spike_grad",
            kernel_shape=tuple(self.beta.shape) if self.num_channels is None else None,
            threshold_shape=tuple(self.threshold.shape),
            state=StateNames(("mem",), potential="mem"),
            returns_potential=self.output or not self.init_hidden,
            spike_factor=self.graded_spikes_factor,
            rounds_potential=bool(self.state_quant),
            inhibition=bool(self.inhibition),
        )

    @property
    def is_finite(self) -> bool:
        """Whether the kernel has an order or taps of its own: past inputs count then, not a potential."""
        return self.order is not None or "kernel" in self._modules

    @property
    def reset_mechanism(self) -> str:
        """Always "none"; assigning anything else raises ValueError."""
        return "none"

    @reset_mechanism.setter
    def reset_mechanism(self, value: str) -> None:
        check_reset_mechanism(value)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        key = prefix + "reset_mechanism_val"
        # snnTorch saves how a neuron resets, as a number, and would reset this one as the saved one did
        if key in state_dict and int(state_dict[key]) != _NONE:
            log_once(
                "snntorch.reset_mechanism_val",
                f"the loaded {key} is that of a neuron with a reset, which this one does not have. Weights "
                "trained with a reset usually want fine-tuning without it.",
            )
            self.reset_mechanism_val = torch.full_like(self.reset_mechanism_val, _NONE)

    def reset_samples(self, samples: Tensor) -> Tensor:
        r"""Starts some samples of the batch anew: see :func:`mfp_neurons.reset_samples`.

        Returns:
            ``mem`` [N, \*] after it. Where mem is handed over by hand, go on with this one.

        >>> from mfp_neurons.snntorch import MFPLeaky
        >>> lif = MFPLeaky(beta=0.5, order=4)
        >>> _, mem = lif(torch.ones(2, 1))
        >>> lif.reset_samples(torch.tensor([True, False])).flatten()
        tensor([0., 1.])
        """
        check_samples(samples)
        # inference mode is left, because a state that it made could not be changed or trained from later
        if self.mem.shape != (0,):  # as it is before the first step
            with self._in_normal_mode():
                self._zero(sample_mask(samples, self.mem))
        return self.mem

    def _zero(self, ended: Tensor) -> None:
        """Zeroes the state where ``ended``, which broadcasts over a step, is true."""
        self.mem = self.mem.masked_fill(ended, 0)

    def extra_repr(self) -> str:
        kernel = self.kernel
        return ", ".join([kernel.kind, *(f"{name}={value}" for name, value in kernel.options().items())])

    def _spread(self, dims: int) -> tuple[int, ...]:
        """The shape in which a value a channel, or whatever beta holds, broadcasts over a step."""
        if self.num_channels is None:
            return tuple(self.beta.shape)
        if self.num_channels > 1 and dims < 2:
            raise ValueError(
                f"num_channels={self.num_channels} counts channels along dim 1 of a step [N, C, *]; steps "
                f"here have {dims} dimensions: give them one for the batch"
            )
        return (self.num_channels, *[1] * (dims - 2))

    def _operands(self, step: torch.Size, steps: int | None) -> tuple[tuple[int, ...], Kernel, Tensor]:
        return operands(self.kernel(), self.threshold, self._spread(len(step)), step, steps)

    def _in_normal_mode(self) -> AbstractContextManager[Any]:
        """Around what computes a state: the tensors of inference mode can't be trained from, or watched."""
        if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
            return nullcontext()
        stack = ExitStack()
        stack.enter_context(torch.inference_mode(False))  # which turns gradients on
        stack.enter_context(torch.no_grad())
        return stack

    def _refuse_mem(self, mem: Tensor | None) -> None:
        if mem is not None and self.init_hidden:
            raise TypeError("`mem` should not be passed as an argument while `init_hidden=True`")

    def _returned(self, spk: Tensor, mem: Tensor) -> Any:
        """snnTorch's return rule."""
        return spk if self.init_hidden and not self.output else (spk, mem)


def check_reset_mechanism(value: Any) -> None:
    """Raises ValueError for anything but "none"."""
    if isinstance(value, str) and value in ("subtract", "zero"):
        raise ValueError(
            f"reset_mechanism must be 'none', got {value!r}: a reset makes every step depend on the spike "
            "before it, which is what a memory-free neuron drops. Keep snn.Leaky where the reset matters. "
            "Without one the potential grows up to input / (1 - beta), so the threshold may need raising."
        )
    if not isinstance(value, str) or value != "none":
        raise ValueError(f"reset_mechanism must be 'none', got {describe(value)}")


def real(name: str, value: Any, check: Callable[[str, Any], None] = check_finite) -> Any:
    """``value`` if snnTorch can store it as a real number or tensor; integers become floats."""
    unreal = value.is_complex() or value.dtype == torch.bool if isinstance(value, Tensor) else False
    if unreal or isinstance(value, bool):
        raise TypeError(f"{name} must be a real number or tensor, got {describe(value)}")
    if isinstance(value, int):
        value = float(value)
    if isinstance(value, Tensor):
        if value.numel() == 0:
            raise ValueError(f"{name} must not be empty, got {describe(value)}")
        value = value if value.is_floating_point() else value.float()  # no integer can be trained
    elif not isinstance(value, float):
        try:
            value = torch.as_tensor(value, dtype=torch.get_default_dtype())
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{name} must be a real number or tensor, got {describe(value)}") from None
    check(name, value)
    return value
