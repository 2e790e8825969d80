"""The fault matrix: every step of the fifty, broken in every way."""
