"""Configs: what is written is what runs, and a mistake is named before anything starts."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.train import config as config_module
from mfp_neurons.train.config import Config, ConfigError, from_dict, load, parse_override, shipped


@pytest.mark.parametrize("config", [Config(), *map(load, shipped())], ids=["defaults", *shipped()])
def test_every_config_survives_a_round_trip(config: Config) -> None:
    assert from_dict(config.as_dict()) == config


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"trainning": {}},
            r"trainning is not a setting \(did you mean training\?\); accepted here: data, network, ",
        ),
        ({"training": {"epoch": 3}}, "training.epoch is not a setting"),
        ({"training": {"epochs": 0}}, "training.epochs = 0 is not accepted: give an integer of 1 or more"),
        ({"training": {"epochs": True}}, "training.epochs = True is not accepted"),
        ({"training": {"epochs": 2.0}}, "training.epochs = 2.0 is not accepted"),
        ({"training": {"amp": "fp8"}}, "training.amp = 'fp8' is not accepted: give one of 'off', 'bfloat16'"),
        (
            {"training": {"epochs": 3, "fit_orders_bits": 2, "fit_orders_epoch": 3}},
            "fit_orders_epoch = 3 leaves none of the 3 epochs",
        ),
        (
            {"training": {"epochs": 3, "float_epochs": 3}},
            "training.float_epochs = 3 leaves none of the 3 epochs",
        ),
        ({"training": 3}, "training = 3 is not accepted: give a table"),
        ({"network": {"weight_bits": 9}}, "network.weight_bits = 9 is not accepted"),
        ({"network": {"weight_bits": True}}, "network.weight_bits = True is not accepted"),
        ({"network": {"hidden": []}}, r"network.hidden = \(\) is not accepted"),
        (
            {"network": {"neuron": {"kind": "gru"}}},
            "network.neuron.kind = 'gru' is not accepted: give one of",
        ),
        ({"network": {"neuron": {"decay": 1.0}}}, "network.neuron.decay = 1.0 is not accepted"),
        ({"network": {"neuron": {"decay": float("nan")}}}, "network.neuron.decay = nan is not accepted"),
        (
            {"network": {"neuron": {"order": [1, 2]}}},
            r"network.neuron.order = \(1, 2\) has 2 items.*the 3 hidden",
        ),
        ({"network": {"neuron": {"kind": "lif", "order": 3}}}, "network.neuron.order = 3.*in hidden layer 0"),
        ({"network": {"neuron": {"feedback": -1}}}, "network.neuron.feedback = -1 is not accepted"),
        (
            {"network": {"neuron": {"kind": ["fir", "exp", "lif"], "feedback": [1, 0, 2]}}},
            "network.neuron.feedback = 2 in hidden layer 2.*not 'lif'; give 0",
        ),
        (
            {"network": {"neuron": {"kind": "matrix", "per_channel": False, "feedback": 1}}},
            "network.neuron.feedback = 1 in hidden layer 0.*not 'matrix'",
        ),
        ({"network": {"neuron": {"potential_bits": 2}}}, "potential_bits = 2 in hidden layer 0"),
        ({"network": {"neuron": {"kind": "lif", "stride": 2}}}, "stride = 2 in hidden layer 0.*give 1"),
        ({"network": {"neuron": {"kind": "matrix", "stride": 2}}}, "stride = 2 in hidden layer 0.*give 1"),
        ({"network": {"neuron": {"kind": "sliding-psn", "stride": 2}}}, "stride = 2 in hidden layer 0"),
        (
            {"network": {"neuron": {"kind": "sliding-psn", "kernel_bits": "pow2"}}},
            "'sliding-psn' neuron has real taps; give 0",
        ),
        *(
            ({"network": {"neuron": {"kind": kind, "order": 3}}}, f"a '{kind}' neuron keeps its potential")
            for kind in ("spikingjelly-lif", "snntorch-leaky")
        ),
        (
            {"network": {"neuron": {"kind": "snntorch-leaky", "potential_bits": 2}}},
            "'snntorch-leaky' neuron stores no potential of few bits; give 32",
        ),
        (
            {"network": {"neuron": {"kind": "snntorch-leaky", "detach_reset": False}}},
            "snn.Leaky has no gradient through its reset; give true",
        ),
    ],
)
def test_a_mistake_is_named_with_key_value_and_what_is_accepted(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_dict(settings)


def test_a_list_gives_each_hidden_layer_its_own_value() -> None:
    neuron = from_dict(
        {
            "network": {
                "neuron": {"kind": ["exp", "fir", "lif"], "order": [1, 4, 0], "potential_bits": [32, 32, 2]}
            }
        }
    ).network.neuron
    assert [neuron.layer(i).kind for i in range(3)] == ["exp", "fir", "lif"]
    assert [neuron.layer(i).order for i in range(3)] == [1, 4, 0]
    assert neuron.layer(2).potential_bits == 2


def test_overrides_win_over_the_file_and_leave_their_source_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[training]\nepochs = 3\nseed = 1\n")
    table = {"kind": "lif"}
    config = load(str(path), {"training.seed": 7, "network.neuron": table, "network.neuron.decay": 0.25})
    assert (config.training.epochs, config.training.seed) == (3, 7)
    assert (config.network.neuron.kind, config.network.neuron.decay) == ("lif", 0.25)
    assert table == {"kind": "lif"}


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("training.epochs=3", ("training.epochs", 3)),
        ("network.neuron.order=[1, 8, 8]", ("network.neuron.order", [1, 8, 8])),
        ("data.name=fashion-mnist", ("data.name", "fashion-mnist")),
        ("data.root = a=b", ("data.root", "a=b")),
    ],
)
def test_an_override_is_toml_or_a_bare_word(argument: str, expected: tuple) -> None:
    assert parse_override(argument) == expected


def test_an_override_cannot_reach_into_a_value() -> None:
    with pytest.raises(ConfigError, match="network is a value, not a table"):
        config_module.assign({"network": 3}, "network.hidden", [1])


@given(st.integers(-3, 40), st.sampled_from([f.name for f in dataclasses.fields(Config().training)]))
def test_a_number_is_stored_as_given_or_refused_with_its_key(value: int, key: str) -> None:
    settings = {"training": {"epochs": 99, key: value}}
    try:
        stored = getattr(from_dict(settings).training, key)
    except ConfigError:
        with pytest.raises(ConfigError, match=f"^training.{key} = {value} is not accepted: give "):
            from_dict(settings)
    else:
        assert stored == value
