"""SpikingJelly: run each batch norm and the neuron behind it as one; see what training keeps in memory."""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from mfp_neurons import convert


def network() -> nn.Sequential:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        spikes = neuron.LIFNode(surrogate_function=surrogate.ATan())
        return [layer.Conv2d(inputs, outputs, 3, padding=1, bias=False), layer.BatchNorm2d(outputs), spikes]

    torch.manual_seed(0)
    net = nn.Sequential(*block(1, 16), *block(16, 16), layer.Flatten(), layer.Linear(16 * 14 * 14, 10))
    functional.set_step_mode(net, "m")
    return net


def kept_for_backward(net: nn.Module, x: Tensor) -> float:
    """Megabytes of tensors that a forward keeps for its backward, the weights left out."""
    weights = {parameter.data_ptr() for parameter in net.parameters()}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(x).mean(0).sum()
    return sum(sizes.values()) / 2**20


x = torch.rand(4, 16, 1, 14, 14)  # [T, N, C, H, W]
networks = {
    "LIFNode": network(),
    "MFPNode": convert(network()),
    "MFPNode, fused": convert(network(), fuse=True),
}
for name, net in networks.items():
    print(f"{name:15} keeps {kept_for_backward(net, x):5.1f} MB for backward")
print(networks["MFPNode, fused"].mfp_conversion)
