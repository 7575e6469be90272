"""A gated recurrent unit in 32-bit floats, beside a network of the zoo: trained on its data, written in C."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mfp_neurons.train.config import Config, from_dict

SOURCES = Path(__file__).parent


class GRUClassifier(nn.Module):
    """nn.GRU and a linear layer on its state: [T, N, features] to scores [T, N, classes]."""

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.gru = nn.GRU(features, width)
        self.readout = nn.Linear(width, classes)

    def forward(self, x_seq: Tensor) -> Tensor:
        scores: Tensor = self.readout(self.gru(x_seq)[0])
        return scores


def gru(features: tuple[int, ...], classes: int, time_steps: int, neurons: Any, *, width: int) -> nn.Module:
    """A builder for ``network.architecture``; it takes no neurons of the config."""
    return GRUClassifier(features[0], width, classes)


def config(beside: Config, width: int, epochs: int, learning_rate: float) -> Config:
    """The training config of such a network on the data of another one, and in its batches."""
    return from_dict(
        {
            "data": asdict(beside.data),
            "network": {
                "architecture": f"{__name__}:gru",
                "options": {"width": width},
                "weight_bits": 32,
            },
            "readout": {"train": 1, "candidates": [1]},
            "training": asdict(beside.training)
            | {"epochs": epochs, "learning_rate": learning_rate, "weight_decay": 0.0},
        }
    )


def write_weights(module: GRUClassifier, scale: float, path: Path) -> None:
    """The weights as C tables in float32, for ``gru.c``; its inputs are those of torch times ``scale``."""
    unit, width = module.gru, module.gru.hidden_size
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
