"""Measured speed: this mesh and others, the same work, side by side on one machine.

``workload`` says what the work is, ``peers/`` holds one small adapter for each system, ``harness`` runs
each role of a system in a process of its own (``worker``) and interleaves the systems in rounds,
``summary`` makes medians of the raw numbers, ``report`` a table.  ``micro`` measures single parts.
The method is written down in ``docs/performance.md``.
"""
