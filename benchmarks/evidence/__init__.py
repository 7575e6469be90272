"""Accuracy against cost of the methods that compete; ``python -m benchmarks.evidence`` trains them."""
