"""A mesh between hosts: real processes, sockets and multicast, in the laboratory's namespaces."""
