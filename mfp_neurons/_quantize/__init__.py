"""The parts of ``mfp_neurons.quantize``: arithmetic, layers, choice of layers, Brevitas."""
