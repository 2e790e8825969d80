"""Guests, seen from their network: the SSH service, from inside the network's namespace."""

from blocks.guest.ssh import HostKeyChanged, accepts_key, banner, login_command

__all__ = ["HostKeyChanged", "accepts_key", "banner", "login_command"]
