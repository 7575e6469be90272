"""What both snnTorch neurons share beside their kernel: arguments, checkpoints, returns."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from typing import Any, Unpack

import snntorch as snn
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from .. import functional
from .._arguments import subtracted
from .._checks import (
    check_choice,
    check_finite,
    check_threshold,
    describe,
    is_readable,
    log_once,
)
from .._reset import check_samples, sample_mask
from .._saved_spikes import follows_spikes, mark_spikes
from ..feedback import Feedback, ResetArguments
from ..history import Exponential, Matrix, as_dtype
from ..neuron import HistoryKernel, shows_kernel_options
from ..spec import Carried, KernelOptions, KernelParameters, NeuronSpec, ResetSpec, StateNames
from .kernel import BetaKernel, Operands, checked_kernel, operands, per_channel, spread_over
from .network import unlist
from .surrogates import StrictSpike, own_spike_grad

MECHANISMS = ("none", "subtract", "zero", "feedback")
_NO_RESET = snn.SpikingNeuron.reset_dict["none"]


class MemoryFree(snn.LIF):  # type: ignore[misc, name-defined]
    """Arguments, kernel, step and checkpoint rules of both neurons; snnTorch's constructors do the rest."""

    beta: Tensor
    threshold: Tensor
    graded_spikes_factor: Tensor
    reset_mechanism_val: Tensor
    mem: Tensor
    gain: Tensor | float
    feedback: Feedback

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
        reset_mechanism: str = "subtract",
        state_quant: Any = False,
        output: bool = False,
        graded_spikes_factor: Any = 1.0,
        learn_graded_spikes_factor: bool = False,
        reset_delay: bool = True,
        *,
        gain: Any = 1.0,
        reset_order: int | None = None,
        **options: Unpack[KernelOptions],
    ) -> None:
        # snnTorch lists an instance before it looks at its arguments, so everything is checked before that
        is_finite = options.get("kernel", "exp") != "exp" or options.get("order") is not None
        self._check_can_run(inhibition, state_quant, is_finite)
        beta, gain = real("beta", beta), real("gain", gain)
        threshold = real("threshold", threshold, check_threshold)
        graded_spikes_factor = real("graded_spikes_factor", graded_spikes_factor)
        spike_grad = own_spike_grad(spike_grad)
        beta = per_channel(beta, options)
        kernel = checked_kernel(self, beta, gain, learn_beta, options)
        self._check_reset(reset_mechanism, reset_delay, threshold, inhibition, is_finite)
        feedback = _feedback(reset_mechanism, kernel, reset_order)
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
                "none" if reset_mechanism == "feedback" else reset_mechanism,
                state_quant,
                output,
                graded_spikes_factor,
                learn_graded_spikes_factor,
            )
        except BaseException:  # such as a warning that the user made an error
            unlist(lambda neuron: neuron is self)
            raise
        self._reset_mechanism, self._reset_order = reset_mechanism, reset_order
        self.reset_delay = reset_delay
        self.feedback = feedback
        self.order, self.stride = kernel.order, kernel.stride
        self.num_channels, self.groups = kernel.num_channels, kernel.groups
        self.kernel_bits = kernel.kernel_bits
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
        return self._beta_kernel()

    def _beta_kernel(self) -> BetaKernel:
        learnable = isinstance(self.beta, nn.Parameter)
        return BetaKernel(
            self.beta,
            self.gain,
            self.order,
            self.kernel_bits,
            self.num_channels,
            learnable,
            self.stride,
            self.groups,
        )

    def neuron_spec(self) -> NeuronSpec:
        """What this neuron computes and keeps, for whoever reads a model."""
        kernel, carried = self.kernel, self.feedback.carried(self.kernel)
        if self._resets_twice and self._own_steps is None:
            carried = Carried("potential")
        return NeuronSpec(
            kernel=None if self._resets_twice else kernel,
            reset=self._reset_spec(),
            carried=carried,
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
            decays=(self.beta,),
        )

    @property
    def is_finite(self) -> bool:
        """Whether the kernel has an order or taps of its own: past inputs count then, not a potential."""
        return self.order is not None or "kernel" in self._modules

    @property
    def reset_mechanism(self) -> str:
        """ "none", "subtract", "zero" or "feedback". It may be assigned, but not to or from "feedback"."""
        return self._reset_mechanism

    @reset_mechanism.setter
    def reset_mechanism(self, value: str) -> None:
        self._check_reset(value, self.reset_delay, self.threshold, self.inhibition, self.is_finite)
        if value == self._reset_mechanism:
            return
        if "feedback" in (value, self._reset_mechanism):
            raise ValueError(
                f"reset_mechanism={value!r} cannot follow {self._reset_mechanism!r}: the taps of 'feedback' "
                "are parameters, which a neuron has from its start or never. Make a new neuron"
            )
        self.feedback = _feedback(value, self.kernel, self._reset_order if value == "subtract" else None)
        self._reset_mechanism = value
        self.reset_mechanism_val = torch.full_like(
            self.reset_mechanism_val, snn.SpikingNeuron.reset_dict[value]
        )
        self._forget_own_spikes()

    def _forget_own_spikes(self) -> None:
        """Drops the own spikes that are kept: another reset needs others."""

    @classmethod
    def _check_reset(
        cls, mechanism: Any, delay: bool, threshold: Any, inhibition: bool, is_finite: bool
    ) -> None:
        """Raises ValueError for a reset that the other options leave no meaning."""
        check_choice("reset_mechanism", mechanism, MECHANISMS)
        if mechanism not in ("subtract", "zero"):
            return
        lowest = _lowest(threshold)
        if lowest < 0 and (is_finite or not issubclass(cls, snn.Leaky)):
            raise ValueError(
                f"reset_mechanism={mechanism!r} with an order, or over whole sequences, takes a threshold >= "
                f"0, got {lowest}: a neuron at rest is above it, and snn.Leaky resets it before its first "
                "step. Give reset_mechanism='none', or take MFPLeaky without an order"
            )
        if is_finite:
            _check_own_spikes_say_all(mechanism, delay, inhibition)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: Any, *args: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *args)
        key = prefix + "reset_mechanism_val"
        if key not in state_dict:
            return
        # snnTorch saves how a neuron resets, as a number; "feedback" stands there as no reset
        loaded, own = list(snn.SpikingNeuron.reset_dict)[int(state_dict[key])], self._reset_mechanism
        if loaded == own or (loaded == "none" and own == "feedback"):
            return
        try:
            self.reset_mechanism = loaded
            log_once(
                "snntorch.reset_mechanism_val",
                f"the loaded {key} is that of reset_mechanism={loaded!r}, which this neuron, made with "
                f"{own!r}, has from now on. For another one assign to its reset_mechanism after loading.",
            )
        except ValueError as error:
            log_once(
                "snntorch.reset_mechanism_val.kept",
                f"the loaded {key} is that of reset_mechanism={loaded!r}, which this neuron cannot have; it "
                f"keeps {own!r}, and the weights may want fine-tuning. {error}",
            )
            self.reset_mechanism_val = torch.full_like(
                self.reset_mechanism_val, snn.SpikingNeuron.reset_dict.get(own, _NO_RESET)
            )

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

    # --- what its own spikes change ---

    @property
    def _own_steps(self) -> int | None:
        """R, how many of its own last spikes a step depends on; None where the potential holds them all."""
        return self.feedback.order(self.kernel)

    @property
    def _resets_twice(self) -> bool:
        """Whether the potential that fires is not the one that is left, nor one that own spikes explain."""
        return self.feedback.kind == "subtract" and not self.reset_delay

    @property
    def _detaches(self) -> bool:
        """Whether no gradient passes through own spikes: snn.Leaky detaches a delayed reset alone."""
        return bool(self.reset_delay) and self.feedback.kind != "feedback"

    def _reset_spec(self) -> ResetSpec | None:
        feedback, order = self.feedback, self._own_steps
        if feedback.kind is None or self._resets_twice:
            return None
        taps = self._own_weights()
        if taps is not None and feedback.kind == "subtract":
            taps = self._times_threshold(taps)
        return ResetSpec(feedback.kind, order, taps, feedback.delay, self._detaches)  # type: ignore[arg-type]

    def _own_weights(self) -> Tensor | None:
        """r[1] .. r[R], [R] or [R, P] as the kernel's values; of "subtract" those of a threshold of 1."""
        # free taps may have been truncated; how a reset fades stays with beta
        return self.feedback.values(replace(self._beta_kernel(), order=self.kernel.order), 1.0)

    def _times_threshold(self, weights: Tensor) -> Tensor:
        """Weights [R] or [R, P], in the shape of beta, times the threshold: [R] or [R, P]."""
        threshold = subtracted(self.threshold).reshape(self.threshold.shape or (1,))
        spread = self._spread(threshold.dim() + 1) if weights.dim() == 2 else ()
        dims = max(len(spread), threshold.dim())
        weights = spread_over(weights if weights.dim() == 2 else weights.unsqueeze(1), spread, dims, lead=1)
        taps = (threshold * weights).flatten(1)
        return taps.squeeze(1) if taps.shape[1] == 1 else taps

    def _operands(self, step: torch.Size, steps: int | None) -> tuple[Operands, ResetArguments]:
        """For steps of shape ``step``, ``steps`` in the whole sequence; None where more may follow."""
        if self.is_finite:  # what snn.Leaky lets users assign: reset_delay, inhibition
            _check_own_spikes_say_all(self._reset_mechanism, self.reset_delay, self.inhibition)
        kernel, weights, own_steps = self.kernel(), None, self._own_steps
        if self.feedback.kind is not None and own_steps is not None:
            if self.feedback.kind == "feedback" or (
                self.feedback.kind == "subtract" and not isinstance(kernel, Exponential)
            ):
                weights = self._own_weights()
            # a recursion stands for a sum that is not truncated within a sequence, of own spikes neither
            reaches_all = weights is None and steps is not None and own_steps >= steps - 1
            steps = steps if reaches_all else None
        fitted = operands(kernel, self.threshold, self._spread(len(step)), step, steps, weights)
        return fitted, self._reset_arguments(fitted)

    def _reset_arguments(self, fitted: Operands) -> ResetArguments:
        reset, own_steps = self.feedback.kind, self._own_steps
        if reset is None or own_steps == 0:
            return {}
        if reset == "zero":
            return {"reset": "zero", "detach_reset": self._detaches}
        taps = fitted.feedback
        if taps is not None:
            taps = taps if reset == "feedback" else subtracted(fitted.threshold) * taps
            return {"reset": "feedback", "reset_taps": taps, "detach_reset": self._detaches}
        is_recursion = isinstance(fitted.kernel, Exponential) and fitted.kernel.order is None
        order = None if is_recursion else own_steps
        return {"reset": "subtract", "reset_order": order, "reset_delay": True, "detach_reset": True}

    # --- one step ---

    def _leaky_step(self, x: Tensor, mem: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and potential after x, of an infinite exponential."""
        # the operations of snn.Leaky in its order, so that all is equal bit for bit
        wide = torch.promote_types(x.dtype, torch.float32)
        fits = mem.shape == x.shape
        before = (
            as_dtype(mem, torch.promote_types(mem.dtype, wide)) if fits else torch.zeros_like(x, dtype=wide)
        )
        beta, gain, reset = self.beta.clamp(0, 1), self.gain, self.feedback.kind
        if self.num_channels is not None:
            spread, kernel = self._spread(x.dim()), self._beta_kernel()
            beta = spread_over(kernel.over_channels(beta), spread, x.dim())
            if isinstance(gain, Tensor):
                gain = spread_over(kernel.over_channels(gain.reshape(-1)), spread, x.dim())
        if isinstance(gain, Tensor):
            x = gain * x.to(wide)
        amount = subtracted(self.threshold) if reset == "subtract" else self.threshold
        fired = before if reset is None else self._fired(before)
        if reset == "zero":
            before = (1 - fired) * before
        new = beta * before + x
        if reset == "subtract" and amount.dtype == new.dtype and not amount.requires_grad:
            new = torch.addcmul(new, fired, amount, value=-1)  # the product of a spike is exact
        elif reset == "subtract":
            new = new - fired * amount
        if new.shape != x.shape:  # at the next step snn.Leaky would take it for another batch, and start anew
            shapes = f"beta {list(beta.shape)}" + (
                f" or threshold {list(self.threshold.shape)}" if reset == "subtract" else ""
            )
            raise ValueError(f"{shapes} does not broadcast over a step of input_, {list(x.shape)}")
        new = self._quantized(new)
        spk = self._spikes(new)
        if reset in ("subtract", "zero") and not self.reset_delay:
            more = spk / self.graded_spikes_factor - fired
            new = new - more * (amount if reset == "subtract" else new)
        return spk, new

    def _finite_step(
        self, x: Tensor, history: Tensor | None, own: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """A step of a kernel of finite order or of free taps.

        Args:
            x: [N, *].
            history: the inputs before it, oldest first; None at the start.
            own: the last own spikes [R, N, *], oldest first; None for none.

        Returns:
            Spikes, the potential, and the history and own spikes to keep: the last K - 1 inputs, or all of
            them ("matrix"), and the last R own spikes.
        """
        (view, kernel, threshold, _), reset = self._operands(x.shape, None)
        if isinstance(kernel, Matrix) and history is None:
            history = x.new_zeros((0, *x.shape))  # the start of a sequence, not a whole one
        # clone: the potential must be no view, which snnTorch's detach_hidden cannot detach in place
        state = None if history is None else history.reshape(len(history), *view)
        if reset:
            before = None if own is None else own.reshape(len(own), *view)
            # none of its spikes is used: state_quant and spike_grad may be functions of the user's
            mem = functional.fire_chunk(
                x.reshape(1, *view), kernel, threshold, state, last_spikes=before, strict=True, **reset
            ).potential
        else:
            mem = functional.potential(x.reshape(1, *view), kernel, state)
        mem = self._quantized(mem.reshape(x.shape).clone())
        spk = self._spikes(mem)
        if self.feedback.kind is not None:
            fired = self.spike_grad(mem - self.threshold)
            own = newest(own, fired.detach() if self._detaches else fired, self._own_steps, x)
            if self.feedback.kind == "zero" and not self.reset_delay:
                mem = mem - fired * mem
        if isinstance(kernel, Matrix):
            assert history is not None
            return spk, mem, torch.cat((history, x.unsqueeze(0))), None
        return spk, mem, newest(history, x, self.kernel.state_steps, x), own

    def _quantized(self, mem: Tensor) -> Tensor:
        # a state_quant may return a view, which detach_hidden cannot detach
        return self.state_quant(mem).clone() if self.state_quant else mem

    def _fired(self, mem: Tensor) -> Tensor:
        """snnTorch's mem_reset: where mem is above the threshold, without a gradient."""
        if isinstance(self.spike_grad, StrictSpike):
            return (mem > self.threshold).float()
        return self.mem_reset(mem)  # type: ignore[no-any-return]

    def _spikes(self, mem: Tensor) -> Tensor:
        if self.inhibition:
            return self.fire_inhibition(mem.size(0), mem)  # type: ignore[no-any-return]
        if self.state_quant or not is_one(self.graded_spikes_factor):
            return self.fire(mem)  # type: ignore[no-any-return]
        if not torch.is_grad_enabled():
            return self._fired(mem)
        return self.spike_grad(mem - self.threshold)  # type: ignore[no-any-return]

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
        if (
            follows_spikes()
            and isinstance(self.spike_grad, StrictSpike)
            and is_one(self.graded_spikes_factor)
        ):
            mark_spikes(spk)
        return spk if self.init_hidden and not self.output else (spk, mem)


_KNOWN_FACTORS = WeakTensorKeyDictionary()  # factor: (its version when it was read, whether it was 1)


def is_one(factor: Tensor) -> bool:
    """Whether multiplying by ``factor`` changes nothing.

    A pass over all spikes is saved. On a GPU reading waits for the device, so a factor is read again only
    where it may have changed, and not at all while the call is traced or captured.
    """
    if factor.requires_grad or torch.compiler.is_compiling() or factor.is_meta:
        return False
    if is_readable(factor) and factor.numel() == 1:
        return factor.item() == 1
    if type(factor) not in (Tensor, nn.Parameter) or factor.is_inference():
        return False
    version, known = _KNOWN_FACTORS.get(factor, (None, False))
    if version == factor._version:
        return bool(known)
    if factor.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    known = bool((factor == 1).all())
    _KNOWN_FACTORS[factor] = factor._version, known
    return known


def _feedback(mechanism: str, kernel: KernelParameters, order: int | None) -> Feedback:
    if kernel.kind == "matrix" and mechanism != "none":
        raise ValueError(
            f"kernel='matrix' takes reset_mechanism='none', got {mechanism!r}: its weights differ between "
            "steps, so that none says how a reset fades"
        )
    return Feedback(
        None if mechanism == "none" else mechanism,
        kernel,
        order=order,
        delay=mechanism == "subtract",
        argument="reset_mechanism",
    )


def _check_own_spikes_say_all(mechanism: str, delay: bool, inhibition: bool) -> None:
    """Raises ValueError for a reset that a finite order, which keeps no potential, cannot compute."""
    if delay or mechanism not in ("subtract", "zero") or (mechanism == "zero" and not inhibition):
        return
    option = "inhibition" if inhibition else "reset_mechanism='subtract'"
    raise ValueError(
        f"{option} with reset_delay=False needs order=None: snn.Leaky then resets by what the last reset "
        "left of the potential, which no sum over the neuron's own spikes says. Give reset_delay=True, "
        "reset_mechanism='zero' without inhibition, or no order"
    )


def newest(before: Tensor | None, now: Tensor, keep: int | None, like: Tensor) -> Tensor:
    """The last ``keep`` steps of ``before`` [S, N, *] (None: zeros) and then ``now`` [N, *]; no view."""
    keep = keep or 0
    steps = now.to(like.dtype).unsqueeze(0)
    steps = steps if before is None else torch.cat((before, steps))
    if len(steps) < keep:
        steps = torch.cat((steps.new_zeros(keep - len(steps), *like.shape), steps))
    return steps[len(steps) - keep :].clone()


def _lowest(threshold: Tensor | float) -> float:
    """The lowest threshold; 0 where reading it would have a cost."""
    if not isinstance(threshold, Tensor):
        return threshold
    return float(threshold.min()) if is_readable(threshold) else 0.0


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
