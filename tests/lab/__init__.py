"""The laboratory: hosts on a LAN of their own (``netns``), programs run in them (``process``), and that
nothing of it stays (``leash``).

A test asks for the fixture ``lan``::

    async def test_something(lan):
        net = lan(2)
        async with net[0].running(["mesh", "daemon"]) as first:
            await first.expect("^ready")
            net[1].link_down()
"""

from __future__ import annotations

from tests.lab.leash import hold
from tests.lab.netns import Host, Lan, why_not
from tests.lab.process import Running, keep_measuring_to_ourselves, running

__all__ = ["Host", "Lan", "Running", "hold", "keep_measuring_to_ourselves", "running", "why_not"]
