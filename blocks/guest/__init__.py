"""Guests, seen from their network: the SSH service, from inside the network's namespace."""

from blocks.guest.execution import Execution, execute
from blocks.guest.ssh import HostKeyChanged, accepts_key, banner, login_command

__all__ = ["Execution", "HostKeyChanged", "accepts_key", "banner", "execute", "login_command"]
