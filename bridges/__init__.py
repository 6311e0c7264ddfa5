"""Bridges between a mesh and message brokers or the web.

A bridge is an ordinary program of the mesh: it uses only the public names of ``mesh``.
Each client stands behind an extra (``redis``, ``rabbitmq``, ``kafka``, ``web``).
"""

from __future__ import annotations
