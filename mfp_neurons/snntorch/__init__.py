r"""snnTorch neurons: :class:`MFPLeaky`, step by step; :class:`MFPLeakyParallel`, a whole sequence at once.

.. math::
    mem[t] = \sum_{j=0}^{\min(t, K-1)} m_j \, input[t-j] + \sum_{j=1}^{\min(t, R)} r_j \, spk[t-j], \qquad
    spk[t] = 1 \text{ if } mem[t] > threshold

With the default kernel, m_j = beta^j, this is ``snn.Leaky`` with any of its resets: r_j = 0 without one, and
-threshold beta^(j-1) where the threshold is subtracted. The rule is snnTorch's own: a neuron whose potential
equals the threshold does not fire.

Also here: :func:`reset` and :func:`detach`, which reach nested neurons; :func:`release`, which takes this
package's neurons off snnTorch's list of instances; :data:`RULES`, which :func:`mfp_neurons.convert` reads.
"""

# ruff: noqa: E402 (the first call turns snnTorch's absence into a helpful error, before anything imports it)

from .._checks import require

require("snntorch", "snntorch")

from .kernel import BetaKernel as BetaKernel
from .leaky import MFPLeaky as MFPLeaky
from .network import detach as detach
from .network import release as release
from .network import reset as reset
from .parallel import MFPLeakyParallel as MFPLeakyParallel
from .rules import LEFT_ALONE as LEFT_ALONE
from .rules import RULES as RULES
from .rules import neuron_spec as neuron_spec
from .rules import replacement as replacement
from .rules import reset_of as reset_of
from .rules import total_weight as total_weight
from .rules import why_unreadable as why_unreadable
from .surrogates import StrictSpike as StrictSpike
from .surrogates import known_surrogate as known_surrogate

__all__ = ["LEFT_ALONE", "RULES", "MFPLeaky", "MFPLeakyParallel", "detach", "release", "reset"]
