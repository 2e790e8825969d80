"""Faults of the host and of the guest, at builds under way: each in one of the four ends."""
