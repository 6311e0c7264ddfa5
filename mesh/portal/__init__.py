"""Between a node, which is Trio's, and programs that are not: one mechanism under ``mesh.aio`` and ``mesh.sync``.

``thread`` runs a Trio context manager in a thread of its own and carries calls there;
``visit`` enters and leaves such managers from outside; ``publish`` carries published values in bulk;
``callback`` takes the node's calls of user code to the user's loop or threads; ``face`` makes of a Trio
class the class that a foreign program sees.  What is particular to asyncio and to threads is in ``mesh.aio`` and ``mesh.sync``.
"""
