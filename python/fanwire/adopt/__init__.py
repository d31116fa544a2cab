"""Sockets that a framework accepted and reads, and that the hub writes to: ``Hub.attach``, ``Hub.adopt``."""
