"""Weights of 1 to 8 bits on any convolution or linear layer, trained with straight-through gradients.

The weight of one output channel is ``codes * scale``: whole numbers times one positive number. With mean(w)
the mean of the channel's absolute weights:

========  ===================================  ==============================================================
bits      codes                                scale
========  ===================================  ==============================================================
1         sign(w), with sign(0) = +1           mean(w); XNOR-Net, arXiv 1603.05279
1.58      0 where abs(w) <= 0.7 mean(w), else  mean of the abs(w) that are left; ternary weight networks,
          sign(w)                              arXiv 1605.04711
2         w / scale rounded, -2 to 1           learned, starts at 2 mean(w); LSQ, arXiv 1902.08153
b, 3..8   w / scale rounded, -p to p, with     learned, starts at 2 mean(w) / sqrt(p); likewise
          p = 2^(b-1) - 1
========  ===================================  ==============================================================

A layer is quantized by giving the object a new class, a subclass of its own that puts the quantized weight
where the float one was used. ``isinstance``, the ``weight`` key of the state dict, optimizers that already
hold the parameter, hooks, step modes, copies and pickles go on working.

The state dict says how many bits a layer has (under torch's key ``_extra_state``), and a checkpoint of other
bits is refused; a float one has no such key, and loads.

The learned scale is one more parameter, ``weight_step``, in units of the scale that LSQ starts at for the
weight as it is now. So 1 is LSQ's start for any checkpoint and any initialization, and Adam, whose steps
ignore the size of a gradient, moves scales of all sizes alike.
"""

from .layers import materialize as materialize
from .reading import Codes as Codes
from .reading import codes as codes
from .reading import is_quantized as is_quantized
from .selection import quantize_weights as quantize_weights

__all__ = ["Codes", "codes", "is_quantized", "materialize", "quantize_weights"]
