"""What is logged, and under which name. Queries, cookies and Authorization never are: they carry tokens."""

import logging

hub_log = logging.getLogger("fanwire.hub")
"""Callbacks that raised, with their traceback; the start and the end of serving."""

engine_log = logging.getLogger("fanwire.engine")
"""What the engine has to say."""

relay_log = logging.getLogger("fanwire.relay")
"""Lanes that go down and come back; what a relay's configuration should name."""
