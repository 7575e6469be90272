"""A gated recurrent unit in 32-bit floats, beside a network of the zoo: trained on its data, written in C."""

from dataclasses import asdict
from pathlib import Path

from torch import Tensor, nn

from benchmarks.evidence.rivals.gated import GRUClassifier
from mfp_neurons.train.config import Config, from_dict

SOURCES = Path(__file__).parent


def config(beside: Config, width: int, epochs: int, learning_rate: float) -> Config:
    """The training config of such a network on the data of another one, and in its batches."""
    return from_dict(
        {
            "data": asdict(beside.data),
            "network": {
                "architecture": "benchmarks.evidence.rivals:gru",
                "options": {"width": width, "norm": False},
                "weight_bits": 32,
            },
            "readout": {"train": 1, "candidates": [1]},
            "training": asdict(beside.training)
            | {"epochs": epochs, "learning_rate": learning_rate, "weight_decay": 0.0},
        }
    )


def write_weights(module: GRUClassifier, scale: float, path: Path) -> None:
    """The weights as C tables in float32, for ``gru.c``; its inputs are those of torch times ``scale``.

    Raises:
        ValueError: the network is none of one layer in floats without a batch norm, which ``gru.c`` runs.
    """
    unit, width = module.recurrent, module.width
    if not isinstance(unit, nn.GRU) or unit.num_layers > 1 or module.norm is not None:
        raise ValueError(f"module = {module!r}: give one layer of a GRU in floats, without a batch norm")
    weights = {name: parameter.detach() for name, parameter in unit.named_parameters()}
    input_bias, state_bias = weights["bias_ih_l0"].clone(), weights["bias_hh_l0"]
    input_bias[: 2 * width] += state_bias[: 2 * width]  # r and z add both; of n, r weighs the second
    tables = {
        "gru_input_weight": weights["weight_ih_l0"] / scale,
        "gru_input_bias": input_bias,
        "gru_state_weight": weights["weight_hh_l0"],
        "gru_state_bias": state_bias[2 * width :],
        "gru_readout_weight": module.readout.weight.detach(),
        "gru_readout_bias": module.readout.bias.detach(),
    }
    sizes = {"INPUTS": unit.input_size, "WIDTH": width, "CLASSES": module.readout.out_features}
    lines = [f"#define GRU_{name} {size}" for name, size in sizes.items()]
    path.write_text("\n".join([*lines, *(_table(name, values) for name, values in tables.items())]) + "\n")


def _table(name: str, values: Tensor) -> str:
    shape = "".join(f"[{size}]" for size in values.shape)
    # constants without linkage: each file that includes them keeps what it uses
    return f"static const float {name}{shape} = {_braces(values)};"


def _braces(values: Tensor) -> str:
    if values.dim() == 0:
        return f"{float(values).hex()}f"  # hexadecimal: the very same number
    return "{" + ", ".join(map(_braces, values)) + "}"
