"""A short run of benchmarks/fuzz_deploy.py: nothing but refusals and networks that run."""

from mfp_neurons.deploy.file import to_bytes
from tests.deploy import fuzzing
from tests.deploy.graphs import examples
from tests.deploy.mutations import KINDS


def test_mutated_files_are_refused_or_run() -> None:
    bases = [to_bytes(case.graph) for case in examples(40, 0, max_ops=3)]
    tally = fuzzing.files(bases, range(1000))
    assert {kind for kind, _ in tally.outcomes} == set(KINDS)
    assert tally.outcomes["rewritten, signed", "ran"] > 5  # past all checks
    assert len(tally.reasons) > 60  # and turned back at each of them


def test_random_inputs_of_random_networks_run_alike_and_wrong_ones_are_refused() -> None:
    networks, ran, refused = fuzzing.inputs(lambda number: examples(40, number), range(1), samples=20)
    assert networks == 40
    assert ran > 600
    assert refused > 4 * networks
