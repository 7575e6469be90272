"""What a model on an input costs: memory, operations, and an estimate of energy."""

from .measure import report as report
from .record import AC_JOULES as AC_JOULES
from .record import NeuronRow as NeuronRow
from .record import Report as Report
from .record import StateRow as StateRow
from .record import SynapseRow as SynapseRow

__all__ = ["AC_JOULES", "NeuronRow", "Report", "StateRow", "SynapseRow", "report"]
