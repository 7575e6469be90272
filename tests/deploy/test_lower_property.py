"""Lowering against the float64 evaluation of the same model, on random models of everything that it takes."""

from hypothesis import given, settings

from .models import models
from .oracle import agree

EXAMPLES = 200


@settings(max_examples=EXAMPLES)
@given(models(dyadic=True))
def test_a_model_that_float64_computes_exactly_agrees_in_every_spike(case):
    agree(case.model, case.example, case.top, rounding=0.0)


@settings(max_examples=EXAMPLES)
@given(models())
def test_a_model_agrees_in_every_spike_that_float64_decides(case):
    seen = agree(case.model, case.example, case.top)
    assert seen.undecided <= 1 + seen.spikes // 100  # of 170,000 in 1,500 models it was none
