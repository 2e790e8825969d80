"""Tests that need a kernel of a stock distribution; only run by name."""
