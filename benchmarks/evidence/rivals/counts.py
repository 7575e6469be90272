"""What the rivals cost: the figures of the evidence, where ``mfp_neurons.report`` does not count a network.

Parameters are what a device needs, in favour of the rival: batch norms are folded into the weights or scales
in front of them, the table of a sigmoid takes no bytes, and bringing sums of 32 bits back to codes of 8 bits
takes no energy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mfp_neurons.quantize import is_quantized
from mfp_neurons.reporting.prices import REAL, accumulation, addition, multiplication

SCALE_BITS = 16  # of the codes of an output channel, with a batch norm's gain in it
BIAS_BITS = 32  # beside codes
FLOAT_BITS = 32


@dataclass(frozen=True)
class Operations:
    """What layers of neurons compute beside their synapses, in number.

    Attributes:
        additions: and comparisons.
        multiplications: of two values.
        look_ups: of a sigmoid or tanh in a table of bytes, each at the price of a multiplication of bytes.
    """

    additions: float = 0.0
    multiplications: float = 0.0
    look_ups: float = 0.0

    @property
    def number(self) -> float:
        return self.additions + self.multiplications + self.look_ups

    def joules(self, bits: float) -> float:
        """With values of so many bits."""
        operand = _operand(bits)
        return (
            self.additions * addition(operand)
            + self.multiplications * multiplication(operand, operand)
            + self.look_ups * multiplication(8, 8)
        )


def _operand(bits: float) -> float:
    return REAL if bits == FLOAT_BITS else bits


def check_bits(bits: int) -> None:
    """Raises ValueError unless a network without spikes can have activations of so many bits."""
    if bits not in (8, FLOAT_BITS):
        raise ValueError(f"bits = {bits!r} is not accepted: give 8, or 32 for floats")


def weight_bits(layer: nn.Module) -> float:
    """Bits of one weight of a layer."""
    bits: float = layer.weight_bits if is_quantized(layer) else FLOAT_BITS  # type: ignore[assignment]
    return bits


def present(layer: Any) -> Tensor:
    """Which weights of a layer are not zero, in the shape of its weight; the others cost no operation."""
    weight: Tensor = layer.quantized_weight() if is_quantized(layer) else layer.weight
    return weight != 0


def parameter_bits(layer: Any, biases: int | None = None) -> int:
    """Bits of a layer's parameters: weights, a scale for each output channel if they are codes, biases.

    Args:
        layer: a convolution or linear layer, whose batch norm is folded.
        biases: how many; None for one an output channel.
    """
    weights, channels = layer.weight.numel(), len(layer.weight)
    biases = channels if biases is None else biases
    if not is_quantized(layer):
        return FLOAT_BITS * (weights + biases)
    code_bits = 2 if layer.weight_bits == 1.58 else int(layer.weight_bits)
    return weights * code_bits + channels * SCALE_BITS + biases * BIAS_BITS


def graded_costs(
    layers: Sequence[tuple[nn.Module, float]],
    operations: Operations,
    *,
    bits: int,
    parameters: int,
    state: int,
    neurons: int,
) -> dict[str, float]:
    """Costs of a network without spikes, of one sample; a stream computes every product once as well.

    Args:
        layers: each with its MACs over all steps.
        operations: beside the synapses, over all steps.
        bits: of an activation.
        parameters: bits of all.
        state: bits that are kept between two steps.
        neurons: over which the state's mean is taken.
    """
    joules = operations.joules(bits) + sum(
        macs * accumulation(_operand(weight_bits(layer)), _operand(bits)) for layer, macs in layers
    )
    macs = sum(macs for _, macs in layers)
    return {
        "weight_bytes": -(-parameters // 8),
        "state_bits": state,
        "state_bits_per_neuron": state / neurons,
        "spikes": 0.0,
        "synaptic_operations": 0.0,
        "streaming_synaptic_operations": 0.0,
        "macs": macs,
        "streaming_macs": macs,
        "neuron_operations": operations.number,
        "energy_joules": joules,
        "streaming_energy_joules": joules,
    }
