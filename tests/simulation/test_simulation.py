"""A few seeds of the simulation; ``make simulate SEEDS=500`` runs many."""

from __future__ import annotations

import pytest

from tests.simulation.__main__ import main
from tests.simulation.mesh import Broken, Simulation
from tests.simulation.nodes import Episode

EACH = 50
"""Short episodes that one test runs: a few seconds, so that several processes can share them."""


@pytest.mark.parametrize("first", range(0, 500, EACH))
def test_short_episodes_of_trouble(first: int) -> None:
    for seed in range(first, first + EACH):
        try:
            Simulation(seed, short=True).run()
        except Exception as error:
            error.add_note(f"python -m tests.simulation --kind short --seeds 1 --trace --first {seed}")
            raise


@pytest.mark.parametrize("seed", [3, 16])
def test_a_mesh_in_trouble_for_long(seed: int) -> None:
    Simulation(seed).run()


@pytest.mark.parametrize("seed", range(4))
def test_real_nodes_in_trouble(seed: int) -> None:
    Episode(seed).run()


def test_an_episode_of_nodes_replays_exactly() -> None:
    first, again, other = (Episode(seed).run() for seed in (6, 6, 7))
    assert first.digest() == again.digest() != other.digest()


def test_it_sees_what_the_account_lacks() -> None:
    episode = Episode(0).run()
    reader = episode._readers[0]
    episode._account(reader)
    reader.messages.received -= 1
    with pytest.raises(Broken, match="published"):
        episode._account(reader)
    with pytest.raises(Broken, match="received"):
        reader.check()


def test_it_sees_a_message_with_two_fates() -> None:
    simulation = Simulation(1, short=True)
    simulation.run()
    node = next(n for n in simulation._alive if n.__dict__.get("book"))
    (publisher, topic), fates = next((key, fates) for key, fates in node.__dict__["book"].items() if fates)
    number = next(iter(fates))
    with pytest.raises(Broken, match="and was"):
        node.account(publisher, topic, number, number + 1, "lost")


def test_a_seed_replays_exactly() -> None:
    first, again, other = (Simulation(seed, short=True).run() for seed in (4, 4, 5))
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
    monkeypatch.setattr("sys.argv", ["simulation", "--kind", "short", "--first", "7", "--seeds", "3"])
    assert main() == 1
    said = capsys.readouterr()
    told, again = said.err.splitlines()
    assert told == "short, seed 8: n1 has #3 twice"
    assert again.endswith("python -m tests.simulation --kind short --seeds 1 --trace --first 8")
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
