"""Maps that are needed at the same time lie side by side, all others share memory."""

from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.deploy.graph import Graph, sources
from mfp_neurons.deploy.plan import plan
from tests.deploy.graphs import dense, fires, graphs, readout, vectors


@given(graph=graphs(max_ops=8), alignment=st.sampled_from([1, 1, 64]), data=st.data())
def test_no_map_is_written_while_another_one_in_its_place_is_needed(
    graph: Graph, alignment: int, data: st.DataObject
) -> None:
    maps = range(1 + len(graph.body))
    sizes = [data.draw(st.integers(1, 200)) for _ in maps]
    permanent = data.draw(st.sets(st.sampled_from(maps)))
    places = plan(graph, sizes, permanent=permanent, alignment=alignment)

    def room(index: int) -> range:
        return range(places.offsets[index], places.offsets[index] + sizes[index])

    owner = {place: index for index in [0, *permanent] for place in room(index)}
    loads = []
    for number in range(len(graph.ops)):
        made = {number + 1} & set(maps)
        owner |= {place: index for index in made - permanent for place in room(index)}
        later = {i for op in graph.ops[number:] for i in sources(op) if i <= number}
        needed = later | made | permanent
        for index in needed:  # nothing was written over
            assert {owner[place] for place in room(index)} == {index}
        loads.append(sum(sizes[index] for index in needed))
    assert all(offset % alignment == 0 for offset in places.offsets)
    assert places.peak == max(loads) <= places.size == max(room(index).stop for index in maps)


def test_a_chain_of_equal_maps_takes_the_room_of_two() -> None:
    layers = [fires(dense(i, [[1]]), [1], [1]) for i in range(8)]
    chain = vectors(1, *layers, readout(dense(8, [[1]])), steps=1)
    assert plan(chain, [5] * 9).size == plan(chain, [5] * 9).peak == 10
    assert plan(chain, [5] * 9, alignment=8).size == 13
    kept = plan(chain, [5] * 9, permanent={7})
    assert (kept.offsets[7], kept.size) == (0, 15)
