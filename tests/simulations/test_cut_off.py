"""Who has all its neighbours beyond a cut has no way back but the links to them."""

from __future__ import annotations

from psyne_mesh.simulations.cuts import Cut
from psyne_mesh.simulations.run import Run
from psyne_mesh.simulations.scenario import Scenario
from psyne_mesh.simulations.series import components_of

CALM = Scenario(
    name="calm", number="0", title="", nodes=24, params={"duration_s": 55.0}, boot={"kind": "settled", "settle_s": 20}
)


HELD_S = 30.0  # the lonely one has given up its links by then


def test_one_whose_neighbours_are_all_beyond_a_cut_is_back_when_it_heals() -> None:
    run = Run(CALM, 24, 1)
    world, at_the_end = run.world, []

    def cut() -> None:
        lonely = world.hosts[3]
        near = [world.by_peer[peer].index for peer in lonely.lanes]
        others = [host.index for host in world.hosts if host.index not in near and host is not lonely]
        far = near + others[: 12 - len(near)]
        lies = Cut({host.index: int(host.index in far) for host in world.hosts})
        world.links.cut(lies)
        world.after(HELD_S, lambda: at_the_end.append(len(lonely.lanes)))
        world.after(HELD_S, world.links.mend, lies)

    def script() -> None:
        world.links.set_signaling(False)
        world.at(run.t0 + 10, cut)

    run.before_play = script
    run.play()
    assert at_the_end == [0]
    assert len(components_of(run.up())) == 1
    assert all(len(host.actor.members) == 24 for host in run.up())
