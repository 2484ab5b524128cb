"""A TCP proxy in a process of its own, which cuts, stalls, delays and throttles on demand."""

from tests.chaos.proxy.handle import ProxyProcess, Route
from tests.chaos.proxy.links import Trouble

__all__ = ["ProxyProcess", "Route", "Trouble"]
