"""Five questions that an engineer asks, each answered in two sentences; all numbers are the results'."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from benchmarks.evidence.results import Cost, Match, Network, Task, differences, matches, most_accurate


class Absent(LookupError):
    """The results do not have a value."""


def accuracy(main: Task, tasks: Sequence[Task]) -> str:
    """Does it cost accuracy?"""
    ours, rival = _most_accurate(main.ours, main), _most_accurate(main.rivals, main)
    reference = _reference(main)
    first = (
        f"On {main.title}, the most accurate memory-free network, {_named(ours)}, is "
        f"{points(ours, reference)} {_named(reference)} and {points(ours, rival)} the most accurate of all "
        f"others, {_named(rival)}."
    )
    leads = {
        task.title: lead(_most_accurate(task.ours, task), _most_accurate(task.rivals, task)) for task in tasks
    }
    over_tasks = _over_tasks(leads, signed)
    return f"{first} Over all tasks, the lead over the most accurate other network {over_tasks} points."


def memory(main: Task, _: Sequence[Task]) -> str:
    """How much memory, all told?"""
    reference = _reference(main)
    state = measured(reference.cost("state_bits"), reference, "state_bits") / 8
    takes = f"takes {_bytes(reference)}, {state:,.0f} bytes of it for its state"
    first = f"On {main.title}, *{reference.label}* {takes}."
    return f"{first} {_within(main, lambda network: network.total_bytes, _bytes, 'bytes')}"


def energy(main: Task, _: Sequence[Task]) -> str:
    """How much energy when it runs live?"""
    reference = _reference(main)
    first = (
        f"On {main.title}, step by step, *{reference.label}* takes {_stream(reference)} a sample, counted by "
        "operations."
    )
    return f"{first} {_within(main, lambda network: network.streaming_energy, _stream, 'energy')}"


def rivals(_: Task, tasks: Sequence[Task]) -> str:
    """When is a LIF better?"""
    pairs = matches(tasks)
    if not pairs:
        raise Absent("no task has a memory-free network and another one")
    behind = sum(pair.lead < 0 for pair in pairs)
    return (
        f"The worst case for memory-free networks: on {pairs[0].task.title}, {_in_words(pairs[0])}. "
        f"A rival is ahead in {behind} of {len(pairs)} comparisons."
    )


def _in_words(pair: Match) -> str:
    rival = _named(pair.rival)
    if pair.ours is None:
        return f"no memory-free network does with the bytes and the energy in a stream of {rival}"
    return f"{_named(pair.ours)} is {points(pair.ours, pair.rival)} {rival}, {pair.terms}"


def training(main: Task, tasks: Sequence[Task]) -> str:
    """How fast does it train?"""
    ours, lif = _timed(main)
    first = (
        f"On {main.title}, a training step of the most accurate memory-free network takes {ours:.0f} ms, and "
        f"a step of the fastest LIF {lif:.0f} ms, in turns on one machine."
    )
    ratios = {}
    for task in tasks:
        try:
            ratios[task.title] = _timed(task)[0] / _timed(task)[1]
        except Absent:
            continue  # no steps were timed
    return f"{first} Over all tasks, the ratio of the two {_over_tasks(ratios, '{:.2f}'.format)}."


def _timed(task: Task) -> tuple[float, float]:
    """Milliseconds of our most accurate network, and of the fastest LIF."""
    ours = _most_accurate(task.ours, task)
    lifs = [n.milliseconds for n in task.rivals if n.milliseconds is not None and "LIF" in n.family]
    if not lifs:
        raise Absent(f"{task.name}: no LIF was timed")
    return measured(ours.milliseconds, ours, "milliseconds"), min(lifs)


def _within(task: Task, cost: Cost, text: Callable[[Network], str], what: str) -> str:
    """What memory-free networks do with what the reference takes."""
    reference, best = _reference(task), most_accurate(task.within(cost) or [])
    if best:
        return f"With no more, *{best.label}* takes {text(best)} and is {points(best, reference)} it."
    costs = {network.name: value for network in task.ours if (value := cost(network)) is not None}
    if not costs:
        raise Absent(f"{task.name}: no memory-free network has its {what}")
    least = task.networks[min(costs, key=lambda name: costs[name])]
    return (
        f"Every memory-free network takes more: at least {text(least)}, with *{least.label}*, which is "
        f"{points(least, reference)} it."
    )


def _over_tasks(values: Mapping[str, float], text: Callable[[float], str]) -> str:
    low, high = (choose(values, key=lambda title: values[title]) for choose in (min, max))
    if low == high:
        return f"is {text(values[low])}"
    return f"lies between {text(values[low])} ({low}) and {text(values[high])} ({high})"


# --- numbers as text --------------------------------------------------------------------------------------


def measured(value: float | None, network: Network, what: str) -> float:
    """The value.

    Raises:
        Absent: there is none.
    """
    if value is None:
        raise Absent(f"network {network.name} has no {what}")
    return value


def lead(first: Network, second: Network) -> float:
    """Points of the first above the second, mean over pairs."""
    values = differences(first, second)
    if not values:
        raise Absent(f"networks {first.name} and {second.name} have no seed and fold in common")
    return statistics.fmean(values)


def points(first: Network, second: Network) -> str:
    """How accurate the first is beside the second; the name of the second follows."""
    value = lead(first, second)
    if f"{abs(value):.1f}" == "0.0":
        return "level with"
    return f"{abs(value):.1f} points {'above' if value > 0 else 'below'}"


def _named(network: Network) -> str:
    return f"*{network.label}* ({network.accuracy:.1f} %)"


def signed(value: float) -> str:
    """With a sign as printed.

    >>> signed(-0.42), signed(0.04), signed(1.25)
    ('−0.4', '0.0', '+1.2')
    """
    text = f"{abs(value):.1f}"
    return text if text == "0.0" else f"{'−' if value < 0 else '+'}{text}"


def significant(value: float, digits: int) -> str:
    """With so many significant digits, and all digits of a larger number.

    >>> significant(2.3333, 3), significant(2.0, 3), significant(1234.5, 3), significant(0.0543, 2)
    ('2.33', '2', '1,234', '0.054')
    """
    return f"{value:.{digits}g}" if abs(value) < 10**digits - 0.5 else f"{value:,.0f}"


def times(value: float, other: float) -> str:
    return f"{significant(value / other, 2)} times"


def kilobytes(value: float) -> str:
    return f"{significant(value / 1e3, 3)} kB"


def joules(value: float) -> str:
    """In nanojoules, from a thousand of them on in microjoules."""
    return f"{1e9 * value:.0f} nJ" if value < 0.9995e-6 else f"{significant(1e6 * value, 3)} µJ"


def thousands(value: float) -> str:
    return f"{value / 1e3:,.0f} thousand"


def _bytes(network: Network) -> str:
    return kilobytes(measured(network.total_bytes, network, "total_bytes"))


def _stream(network: Network) -> str:
    return joules(measured(network.streaming_energy, network, "streaming_energy"))


def _reference(task: Task) -> Network:
    if task.reference is None:
        raise Absent(
            f"{task.name}: network {task.reference_name!r}, with which others are compared, has no results"
        )
    return task.reference


def _most_accurate(networks: Sequence[Network], task: Task) -> Network:
    network = most_accurate(networks)
    if network is None:
        raise Absent(f"{task.name}: no memory-free network, or no other")
    return network
