"""The state store: what was asked for, what was given out, and how far each build is."""

from blocks.state.builds import Build
from blocks.state.compute import free_resources
from blocks.state.journal import Entry, StepState
from blocks.state.store import StateStore
from blocks.state.tenants import Caller, Tenant, Token

__all__ = [
    "Build",
    "Caller",
    "Entry",
    "StateStore",
    "StepState",
    "Tenant",
    "Token",
    "free_resources",
]
