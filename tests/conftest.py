"""What all tests share: the LAN of namespaces, and how Hypothesis searches."""

from __future__ import annotations

import compileall
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import mesh
from tests.lab import Lan, hold, keep_measuring_to_ourselves, why_not
from tests.torn import remove_torn

REQUIRED = "ZEROMESH_REQUIRE_NETNS"

TORN = pytest.StashKey[int]()

# Shared machines pause: a slow example is no failure. What fails prints how to repeat it.
# A run tries the same examples as the last one; ``--hypothesis-profile=search`` looks for new ones.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("search", deadline=None, print_blob=True, max_examples=1000)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    # What it has to say goes to the terminal, not to what pytest captures.
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        hold()
    # Hundreds of tests start the command or a node as a process. As after an installation, these find
    # their bytecode, even where the environment forbids Python to write any on its own.
    compileall.compile_dir(str(Path(mesh.__file__ or "").parent), quiet=2)


# -- several workers (pytest-xdist): see workers.py, which is imported where that is installed ---------------------


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    from tests.workers import workers

    return workers()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.workers import Parcels

    return Parcels(config, log)


# -- coverage ------------------------------------------------------------------------------------------------------

UNMEASURED = (
    # They read the project, or run it in processes of their own.
    "tests/test_architecture.py", "tests/test_repository.py", "tests/test_names.py", "tests/test_stubs.py",
    "tests/test_docs.py", "tests/test_howto.py", "tests/lab/", "tests/lan/", "tests/hostile/",
    # They go many times through what other tests go through once.
    "tests/benchmarks/", "tests/fuzz/", "tests/simulation/",
)  # fmt: skip
"""Measuring doubles what Python costs, so it is left out where it shows no line that other tests do not."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    # pytest-cov measures in each worker; as a Python that inherits this it would be measured a second time.
    keep_measuring_to_ourselves()


@pytest.hookimpl(trylast=True)
def pytest_sessionstart() -> None:
    keep_measuring_to_ourselves()  # pytest-cov has begun


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    # Workers and programs have ended by now, and pytest-cov, which wraps this hook, combines after it.
    if not hasattr(session.config, "workerinput"):
        session.config.stash[TORN] = remove_torn(session.config.rootpath)


# -- between hosts -------------------------------------------------------------------------------------------------


@pytest.fixture
def lan() -> Iterator[Callable[..., Lan]]:
    """``lan(hosts=2, subnet=1)`` makes a LAN of network namespaces that lasts as long as the test.

    Skipped where that is not allowed; with ``ZEROMESH_REQUIRE_NETNS=1`` a failure instead.
    """
    if reason := why_not():
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED}=1, and there are no network namespaces: {reason}")
        pytest.skip(f"NO NETWORK NAMESPACES, so nothing is tested between hosts: {reason}")
    with ExitStack() as stack:

        def make(hosts: int = 2, *, subnet: int = 1) -> Lan:
            return stack.enter_context(Lan(hosts, subnet=subnet))

        yield make


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        from tests.workers import arranged

        items[:] = arranged(items)
    # Not without pytest-cov, nor with --no-cov, where it has nothing to pause and fails over that.
    measuring = config.getoption("no_cov", None) is False
    for item in items:
        if measuring and item.nodeid.startswith(UNMEASURED):
            item.add_marker("no_cover")
        if "lan" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.lan)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if torn := config.stash.get(TORN, 0):
        terminalreporter.line(
            f"coverage: {torn} programs were killed while they wrote their data; it is left out"
        )
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", [])
        if "NO NETWORK NAMESPACES" in str(report.longrepr)
    ]
    if skipped:
        terminalreporter.section("the LAN was not tested", red=True, bold=True)
        terminalreporter.line(f"{len(skipped)} tests between hosts were skipped: {why_not()}", red=True)
        terminalreporter.line(f"Run as root to include them; {REQUIRED}=1 makes their absence a failure.")
