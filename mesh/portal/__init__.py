"""Between a node, which is Trio's, and programs that are not: one mechanism under ``mesh.aio`` and ``mesh.sync``.

``thread`` runs a Trio context manager in a thread of its own and carries calls there; ``visit`` enters
and leaves further managers from outside; ``face`` makes of a Trio class the class that a foreign program
sees.  What is particular to asyncio is in ``tasks`` and ``errand``, to plain threads in ``threads``.
"""
