"""The layers of a network as LIF neurons with potentials of 8 bits: what memory-free ones stand beside.

Synapses, read-out and streams are those that ``to_verilog`` writes for order 1; ``lif_neurons.v`` says what
the neurons compute.
"""

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfp_neurons.deploy import IntegerNetwork, interpret
from mfp_neurons.deploy.graph import Graph, Neurons, Op, synapse_bound
from mfp_neurons.deploy.verilog.layers import Memory
from mfp_neurons.deploy.verilog.modules import instance

PART = Path(__file__).parent / "lif_neurons.v"
BITS = 8  # of a potential
LEAK = 3  # a potential loses an eighth of itself in a step, as near as a shift comes to a factor of 0.9

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LIFNeurons:
    """The numbers of an ``lif_neurons``.

    Attributes:
        shift: bits of a dot that are left out, so that what is left has as many as the potential.
        current_bits: that are left.
        biases: int64 [C], -128 to 127.
        thresholds: int64 [C], 1 to 127.
    """

    shift: int
    current_bits: int
    biases: Ints
    thresholds: Ints

    def fire(self, dots: Ints) -> Ints:
        """The spikes of all steps, of dots [T, N, C, 1, 1]."""
        biases, thresholds = self.biases[:, None, None], self.thresholds[:, None, None]
        potential = np.zeros(dots.shape[1:], np.int64)
        spikes = np.zeros_like(dots)
        for t, dot in enumerate(dots):
            total = potential - (potential >> LEAK) + biases + (dot >> self.shift)
            spikes[t] = total >= thresholds
            potential = np.where(spikes[t], 0, np.maximum(total, -128))
        return spikes


class LIFNetwork:
    """The layers of a network, each neuron a LIF.

    Codes are those of the network. They are not trained for these neurons, whose biases and thresholds are
    drawn at random: cycles do not depend on what they are, and area and clock hardly do.

    Attributes:
        graph: the layers at order 1, which is what their synapses compute.

    Raises:
        ValueError: a layer is not linear, has several synapses or sees its own spikes; ``lif_neurons`` has no
            such thing.
    """

    def __init__(self, graph: Graph) -> None:
        generator = np.random.default_rng(0)
        self.graph = replace(graph, ops=tuple(_without_history(op) for op in graph.ops))
        self.neurons: dict[int, LIFNeurons] = {}
        for index, op in enumerate(self.graph.ops, start=1):
            if isinstance(op, Neurons):
                self.neurons[index] = _drawn(self.graph, op, generator)

    @property
    def state_bits(self) -> int:
        """Bits that are kept between steps: potentials, and what is pooled over time."""
        return BITS * sum(len(one.biases) for one in self.neurons.values()) + self.graph.state_bits()

    def run(self, levels: Ints, steps: int) -> tuple[Ints, list[Ints]]:
        """Scores and all maps, the input first, as :func:`mfp_neurons.deploy.interpret.run` gives them."""
        maps, periods = [np.broadcast_to(levels, (steps, *levels.shape[1:]))], self.graph.periods
        for index, op in enumerate(self.graph.body, start=1):
            if isinstance(op, Neurons):
                (synapse,) = op.synapses
                maps.append(self.neurons[index].fire(interpret.accumulate(synapse, maps[synapse.source])))
            else:
                maps.append(interpret.evaluate(op, maps, steps // periods[index]))
        head = self.graph.scores
        currents = [interpret.accumulate(synapse, maps[synapse.source]) for synapse in head.synapses]
        own_steps = range(steps // periods[-1])
        scores = [interpret.score(head, [one[: t + 1] for one in currents], t) for t in own_steps]
        return np.stack(scores), maps

    def to_verilog(self, folder: Path, *, name: str, lanes: int) -> list[Path]:
        """Writes it as :meth:`mfp_neurons.deploy.IntegerNetwork.to_verilog` does, with other neurons."""
        module, *others = IntegerNetwork(self.graph).to_verilog(folder, name=name, lanes=lanes)
        text = module.read_text()
        # the head is about a network without potentials
        head = f"// {name}: layers of LIF neurons; {self.state_bits:,} bits are kept between steps.\n"
        text = head + text[text.index(f"module {name} (") :]
        for index, neurons in self.neurons.items():
            file = f"{name}_{index}_constants.hex"
            words = (neurons.thresholds << 8 | neurons.biases % 256).tolist()
            (folder / file).write_text(Memory(words, 15).text())
            text = _replaced(text, f"{name}_layer_{index}", neurons, file)
        module.write_text(text)
        shutil.copy(PART, folder)
        return [module, *others, folder / PART.name]


def _without_history(op: Op) -> Op:
    """An operation at order 1."""
    if not isinstance(op, Neurons):
        return op
    (synapse, *rest), channels = op.synapses, op.shape[0]
    if rest or op.recurrent or op.feedback or synapse.factor is not None or op.shape[1:] != (1, 1):
        raise ValueError(f"{op.name}: a LIF layer must be linear, of one synapse without factors or feedback")
    if channels < 3:
        raise ValueError(f"{op.name}: a LIF layer must have 3 neurons or more, got {channels}")
    return replace(op, taps=np.ones((1, 1, 1), np.int64), thresholds=np.zeros((1, channels), np.int64))


def _drawn(graph: Graph, op: Neurons, generator: np.random.Generator) -> LIFNeurons:
    (synapse,), channels = op.synapses, op.shape[0]
    dot_bits = 1 + int(synapse_bound(synapse, graph.map_top(synapse.source)).max()).bit_length()
    # sums of +1 and -1 are small, so all of their bits count; those of codes of more bits take all they have
    shift = 0 if synapse.bits == 1 else max(0, dot_bits - BITS)
    return LIFNeurons(
        shift, dot_bits - shift, generator.integers(-8, 9, channels), generator.integers(8, 33, channels)
    )


def _replaced(text: str, layer: str, neurons: LIFNeurons, file: str) -> str:
    """The text of a network with an ``lif_neurons`` in a layer."""
    start = text.index(f"\nmodule {layer} (")
    before, module = text[:start], text[start:]
    part = re.compile(r"    mfp_neurons #\((.*?)\n    \) neurons \((.*?)\n    \);", re.S)
    (old, *_) = part.finditer(module)
    (dot_bits,) = re.findall(r"\.DOT_BITS\((\d+)\)", old[1]) or ["2"]
    new = instance(
        "lif_neurons",
        "neurons",
        {
            "NEURONS": len(neurons.biases),
            "DOT_BITS": dot_bits,
            "CURRENT_BITS": neurons.current_bits,
            "SHIFT": neurons.shift,
            "LEAK": LEAK,
            "CONSTANT_FILE": f'"{file}"',
        },
        [port.strip().rstrip(",") for port in old[2].strip().splitlines()],
    )
    return before + module[: old.start()] + "\n".join(new) + module[old.end() :]
