"""What a model on an input costs: memory, operations, and an estimate of energy."""

from .measure import report as report
from .record import Report as Report

__all__ = ["Report", "report"]
