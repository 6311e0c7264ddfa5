"""A few seeds of the simulation; ``make simulate SEEDS=500`` runs many."""

from __future__ import annotations

import pytest

from tests.simulation.__main__ import main
from tests.simulation.mesh import Broken, Simulation


@pytest.mark.parametrize("seed", [3, 11, 16, 1001, 1002, 1003])  # the first three found something once
def test_a_mesh_in_trouble(seed: int) -> None:
    Simulation(seed).run()


def test_a_seed_replays_exactly() -> None:
    first, again, other = (Simulation(seed).run() for seed in (4, 4, 5))
    assert first.history == again.history
    assert first.digest() == again.digest() != other.digest()


def test_what_breaks_is_named_with_its_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(simulation: Simulation) -> Simulation:
        if simulation.seed == 8:
            raise Broken("n1 has #3 twice")
        return simulation

    monkeypatch.setattr(Simulation, "run", broken)
    monkeypatch.setattr("sys.argv", ["simulation", "--first", "7", "--seeds", "3"])
    assert main() == 1
    said = capsys.readouterr()
    assert said.err == "seed 8: n1 has #3 twice\n"
    assert said.out.startswith("3 seeds, 0.0 simulated hours") and "1 failed [8]" in said.out


def test_it_sees_a_message_that_comes_twice() -> None:
    simulation = Simulation(1)
    simulation.run()
    node = next(n for n in simulation._alive if any(n.given.values()))
    number, publisher, topic = next(iter(node.last))
    delivery = next(d for d in node.deliveries if (d.publisher, d.batch.topic) == (publisher, topic))
    node.from_publisher = publisher
    with pytest.raises(Broken, match="twice or late"):
        node._give_to(number, delivery.batch, 0)


def test_it_sees_a_message_that_is_missing() -> None:
    simulation = Simulation(1)
    simulation.run()
    node = next(n for n in simulation._alive if len(n.deliveries) > 5)
    here = {other.id for other in simulation._alive}
    gone = next(d for d in node.deliveries[::-1] if d.publisher in here)
    node.deliveries.remove(gone)
    with pytest.raises(Broken):
        simulation._check()
