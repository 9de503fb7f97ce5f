"""Servers with faults, and a network with faults, to test mail programs against. See `docs/testing-servers.md`."""

from mailkeep.testing.faults import Break, Busy, Faults, Ill, PopFaults
from mailkeep.testing.faulty import Faulty
from mailkeep.testing.proxy import Cut, Proxy

__all__ = ["Break", "Busy", "Cut", "Faults", "Faulty", "Ill", "PopFaults", "Proxy"]
