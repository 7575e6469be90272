"""Quantized layers beside those of Brevitas, and under DDP and FSDP in two processes."""

import subprocess
import sys
import textwrap
import warnings
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn

from mfp_neurons.quantize import codes, is_quantized, materialize, quantize_weights

# --- Brevitas ---


@pytest.fixture(scope="module")
def brevitas() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("brevitas.nn")
        pytest.importorskip("brevitas.quant")
    return module


def quantizers() -> dict[str, tuple[str, str, dict[str, Any]]]:
    return {
        "int8 per tensor": ("brevitas.quant", "Int8WeightPerTensorFloat", {}),
        "int8 per channel": ("brevitas.quant", "Int8WeightPerChannelFloat", {}),
        "int4 per channel": ("brevitas.quant", "Int8WeightPerChannelFloat", {"weight_bit_width": 4}),
        "power of two": ("brevitas.quant", "Int8WeightPerTensorFixedPoint", {}),
        "binary": ("brevitas.quant.binary", "SignedBinaryWeightPerTensorConst", {}),
        "ternary": ("brevitas.quant.ternary", "SignedTernaryWeightPerTensorConst", {}),
    }


def brevitas_layers(brevitas: Any, quantizer: str) -> list[nn.Module]:
    module, name, options = quantizers()[quantizer]
    chosen = getattr(import_module(module), name)
    linear = brevitas.QuantLinear(6, 4, bias=True, weight_quant=chosen, **options)
    return [linear, brevitas.QuantConv2d(2, 3, 3, weight_quant=chosen, **options)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("quantizer", quantizers())
def test_codes_of_brevitas_layers_are_what_they_compute_with(brevitas: Any, quantizer: str) -> None:
    for module in brevitas_layers(brevitas, quantizer):
        with torch.no_grad():
            module.weight.mul_(20)
        latent = module.weight.detach().clone()
        read = codes(module)
        assert torch.equal(module.weight, latent)  # some quantizers of Brevitas clip it as they read it
        assert read.codes.dtype == torch.int8
        assert read.scale.shape == (latent.shape[0], *[1] * (latent.ndim - 1))
        assert read.bits == {"int4 per channel": 4, "binary": 1, "ternary": 2}.get(quantizer, 8)
        value = module.quant_weight().value
        assert torch.equal(read.codes * read.scale, value)
        x = torch.randn(2, 6) if isinstance(module, nn.Linear) else torch.randn(2, 2, 5, 5)
        plain = nn.functional.linear if isinstance(module, nn.Linear) else nn.functional.conv2d
        torch.testing.assert_close(module(x), plain(x, read.codes * read.scale, module.bias))


@pytest.mark.filterwarnings("ignore")
def test_brevitas_layers_are_left_alone_and_copied(brevitas: Any) -> None:
    inner = brevitas_layers(brevitas, "int8 per channel")[0]
    model = nn.Sequential(nn.Linear(6, 6), inner, nn.Linear(4, 2))
    before = type(inner)
    quantize_weights(model, 1)
    assert type(inner) is before and is_quantized(inner)
    assert [model[0].weight_bits, model[2].weight_bits] == [8, 8]
    x = torch.randn(3, 6)
    assert torch.equal(materialize(model)(x), model(x))


@pytest.mark.filterwarnings("ignore")
def test_brevitas_weights_that_are_not_codes_times_scale_are_refused(brevitas: Any) -> None:
    from brevitas.quant import ShiftedUint8WeightPerTensorFloat

    with pytest.raises(ValueError, match="symmetric weight quantizer"):
        codes(brevitas.QuantLinear(6, 4, bias=False, weight_quant=ShiftedUint8WeightPerTensorFloat))
    wide = brevitas.QuantLinear(6, 4, bias=False, weight_bit_width=12)
    with pytest.raises(ValueError, match="at most 8 bits"):
        codes(wide)
    off = brevitas.QuantLinear(6, 4, bias=False, weight_quant=None)
    assert not is_quantized(off)
    with pytest.raises(TypeError, match="QuantLinear"):
        codes(off)


# --- several processes ---

WORKER = """
    import sys, warnings
    warnings.simplefilter("ignore")
    import torch, torch.distributed as dist
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions, get_model_state_dict, set_model_state_dict
    )
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel
    from mfp_neurons.quantize import quantize_weights

    def network(bits):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 2))
        return quantize_weights(model, bits)

    def full(p):
        return p.full_tensor() if hasattr(p, "full_tensor") else p

    def trained(model, x):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        return [full(p).detach() for p in model.parameters()]

    def close(got, expected):
        assert len(got) == len(expected)
        for a, b in zip(got, expected):
            torch.testing.assert_close(a, b)

    rank = int(sys.argv[1])
    dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
    torch.set_num_threads(1)
    x = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    for bits in (1, 1.58, 4):
        expected = trained(network(bits), x)
        wrapped = DistributedDataParallel(network(bits))
        close(trained(wrapped, x[2 * rank : 2 * rank + 2]), expected)
        try:
            quantize_weights(wrapped, 2)
        except ValueError as refused:
            assert "DistributedDataParallel" in str(refused)
        else:
            raise AssertionError("a wrapped model was quantized")
        sharded = network(bits)
        for layer in (sharded[0], sharded[2], sharded[3], sharded):
            fully_shard(layer, mesh=init_device_mesh("cpu", (2,)))
        close(trained(sharded, x[2 * rank : 2 * rank + 2]), expected)
        whole = StateDictOptions(full_state_dict=True)
        state = get_model_state_dict(sharded, options=whole)
        again = network(bits)
        again.load_state_dict(state)
        close(list(again.parameters()), expected)
        set_model_state_dict(sharded, network(bits).state_dict(), options=whole)
        close([full(p).detach() for p in sharded.parameters()], list(network(bits).parameters()))
        try:
            set_model_state_dict(sharded, network(3).state_dict(), options=whole)
        except RuntimeError as refused:
            assert "2.weight: it has 3 bits in the checkpoint" in str(refused)
        else:
            raise AssertionError("a checkpoint of other bits was loaded")
    dist.barrier()
    dist.destroy_process_group()
    print("done")
"""


@pytest.mark.slow  # tests/train/test_distributed.py trains 1-bit layers under both
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_train_as_one_under_ddp_and_fsdp(tmp_path: Any) -> None:
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    commands = [[sys.executable, str(script), str(rank), str(tmp_path / "meeting")] for rank in (0, 1)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in commands
    ]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [output.split()[-1:] for output in outputs] == [["done"], ["done"]], "\n".join(outputs)
