"""FashionMNISTNet as networks of bytes in ONNX Runtime, which ``benchmarks.deploy`` measures beside ours.

They need ``pip install onnx onnxruntime``. Weights are random, which changes no time: no zeros are skipped.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def session(channels: int, batch: int, steps: int, threads: int, *, spiking: bool) -> Callable[[], Any]:
    """One call of the network on images of noise.

    Args:
        channels: of the convolutions.
        batch: images.
        steps: T, of spiking neurons; the steps of all images are one batch for a layer.
        threads: of ONNX Runtime.
        spiking: neurons with a history of ``steps`` steps; False: the same layers with ReLU and one step.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    model = _model(channels, batch, steps if spiking else 1, spiking)
    run = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"]).run
    count = batch * (steps if spiking else 1)
    images = np.random.default_rng(1).integers(0, 256, (count, 1, 28, 28)).astype(np.uint8)
    return lambda: run(None, {"x": images})


def _model(channels: int, batch: int, steps: int, spiking: bool) -> Any:
    from onnx import TensorProto, helper

    graph = _Graph(batch, steps, spiking)
    at = graph.convolve("x", 1, channels)
    at = graph.pool(at)
    at = graph.convolve(at, channels, channels)
    at = graph.pool(at)
    at = graph.add("Flatten", at)
    at = graph.multiply(at, channels * 49, channels * 16)
    at = graph.multiply(at, channels * 16, 100)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "peer",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, (steps * batch, 1, 28, 28))],
            [helper.make_tensor_value_info(at, TensorProto.UINT8, None)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", 13)],
    )
    model.ir_version = 8
    return model


class _Graph:
    """Nodes one after the other; maps are bytes [steps * batch, *]."""

    def __init__(self, batch: int, steps: int, spiking: bool) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._batch, self._steps, self._spiking = batch, steps, spiking
        self._rng = np.random.default_rng(0)

    def add(self, kind: str, *inputs: str, **options: Any) -> str:
        from onnx import helper

        out = f"map{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **options))
        return out

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        from onnx import numpy_helper

        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def convolve(self, source: str, inner: int, out: int) -> str:
        weights = self.constant(self._rng.choice([-1, 1], (out, inner, 3, 3)), np.int8)
        return self._neurons(self.add("QLinearConv", *self._quantized(source, weights), pads=[1, 1, 1, 1]))

    def multiply(self, source: str, inner: int, out: int) -> str:
        weights = self.constant(self._rng.choice([-1, 1], (inner, out)), np.int8)
        return self._neurons(self.add("QLinearMatMul", *self._quantized(source, weights)))

    def pool(self, source: str) -> str:
        return self.add("MaxPool", source, kernel_shape=[2, 2], strides=[2, 2])

    def _quantized(self, source: str, weights: str) -> list[str]:
        one, zero = self.constant(1.0), self.constant(0, np.uint8)
        middle = self.constant(128 if self._spiking else 0, np.uint8)  # a ReLU is what bytes cannot be below
        return [source, one, zero, weights, one, self.constant(0, np.int8), one, middle]

    def _neurons(self, currents: str) -> str:
        """Spikes: the last currents, each with its tap, at or above a threshold."""
        if not self._spiking:
            return currents
        numbers = self.add("DequantizeLinear", currents, self.constant(1.0), self.constant(128, np.uint8))
        axis = self.constant([0], np.int64)
        steps = []
        for t in range(self._steps):
            ends = [self.constant([n * self._batch], np.int64) for n in (t, t + 1)]
            steps.append(self.add("Slice", numbers, *ends, axis))
        spikes = []
        for t in range(self._steps):
            potential = steps[t]
            for j in range(1, t + 1):
                potential = self.add("Add", potential, self.add("Mul", steps[t - j], self.constant(0.5**j)))
            fired = self.add("Not", self.add("Less", potential, self.constant(1.0)))
            spikes.append(self.add("Cast", fired, to=2))  # uint8
        return self.add("Concat", *spikes, axis=0)
