"""Tools around PyTorch run our networks for real: Lightning, the Hub's layout, compilers, transforms."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mfp_neurons import MFP, deploy, quantize_weights

T = 6


def build(bits: float = 1, order: int = 3) -> nn.Sequential:
    """Two kinds of kernel, quantized weights: [T, N, 12] to scores [T, N, 3]."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(12, 16),
        MFP(kernel="fir", order=order, num_channels=16, v_threshold=0.3, kernel_bits="pow2"),
        nn.Linear(16, 16),
        MFP(0.5, order=4, v_threshold=0.3, learnable=True, kernel_bits="pow2"),
        nn.Linear(16, 3),
    )
    return quantize_weights(net, bits=bits)


def loss_of(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(net(x).mean(0), y)


def some_data(samples: int = 64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(3, (samples,), generator=g)
    x = torch.rand(T, samples, 12, generator=g) * 0.3
    for c in range(3):
        x[:, y == c, 4 * c : 4 * c + 4] += 0.6
    return x, y


@pytest.mark.filterwarnings("ignore")
def test_a_lightning_module_trains_is_saved_goes_on_in_mixed_precision_and_deploys(tmp_path: Path) -> None:
    """As SpikingJelly's users write it: the Trainer does the rest."""
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Classifier(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = build()

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            x, y = batch
            return loss_of(self.net, x.transpose(0, 1), y)

        def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
            x, y = batch
            self.log("accuracy", (self.net(x.transpose(0, 1)).mean(0).argmax(-1) == y).float().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.02)

    def trainer(**options: Any) -> Any:
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
        here = {"default_root_dir": tmp_path, "accelerator": "cpu", "devices": 1}
        return lightning.Trainer(**here, **quiet, enable_checkpointing=False, **options)

    module, again = Classifier(), Classifier()
    x, y = some_data()
    batches = DataLoader(TensorDataset(x.transpose(0, 1), y), batch_size=16)
    before = trainer().test(module, batches, verbose=False)[0]["accuracy"]
    first = trainer(max_epochs=8)
    first.fit(module, batches)
    first.save_checkpoint(tmp_path / "half.ckpt")
    options = {"precision": "bf16-mixed", "accumulate_grad_batches": 2, "gradient_clip_val": 1.0}
    trainer(max_epochs=16, **options).fit(again, batches, ckpt_path=tmp_path / "half.ckpt")
    assert any(not torch.equal(p, q) for p, q in zip(module.parameters(), again.parameters(), strict=True))
    assert trainer().test(again, batches, verbose=False)[0]["accuracy"] > max(before, 0.8)
    network = deploy.lower(again.net.eval(), x[:, :4], levels=16)
    assert network.run((x * 15).round().clamp(0, 15).byte().numpy()).shape == (T, 64, 3)


def test_the_hubs_mixin_saves_and_loads_from_a_folder(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface-hub is not installed")

    class Net(nn.Module, hub.PyTorchModelHubMixin):  # type: ignore[misc, name-defined]
        def __init__(self, bits: int = 1, order: int = 3) -> None:
            super().__init__()
            self.layers = build(bits, order)

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)  # type: ignore[no-any-return]

    net = Net(bits=4, order=2)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.rand_like(p))
    net.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"config.json", "model.safetensors"}
    again = Net.from_pretrained(tmp_path)
    x = some_data()[0]
    assert torch.equal(again(x), net.eval()(x))
    assert again.layers[0].weight_bits == 8 and again.layers[2].weight_bits == 4
    assert again.layers[1].kernel.order == 2


def test_a_whole_model_compiles_without_a_break_and_trains_as_before() -> None:
    torch.compiler.reset()
    x, y = some_data()
    plain = build()
    loss_of(plain, x, y).backward()
    fast = build()
    torch.compile(lambda x, y: loss_of(fast, x, y), fullgraph=True, backend="aot_eager")(x, y).backward()
    for a, b in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    torch.compiler.reset()


def test_a_whole_model_is_exported_with_a_free_batch() -> None:
    net = build().eval()
    x, _ = some_data()
    shapes = ({1: torch.export.Dim("batch", min=1, max=4096)},)
    program = torch.export.export(net, (x,), dynamic_shapes=shapes)
    for count in (2, 64):
        torch.testing.assert_close(program.module()(x[:, :count]), net(x[:, :count]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_whole_model_learns_under_autocast(dtype: torch.dtype) -> None:
    x, y = some_data()
    net = build()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        with torch.autocast("cpu", dtype):
            loss = loss_of(net, x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_vmap_maps_the_forward_pass_over_any_dimension() -> None:
    fire = MFP(0.5, order=3, v_threshold=0.3)
    x = torch.rand(T, 4, 5, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch loops over the mapped dimension, and says so
        for dim in (1, 2, 3):
            assert torch.equal(torch.func.vmap(fire, in_dims=dim, out_dims=dim)(x), fire(x))
