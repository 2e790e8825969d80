"""How Fifty Steps is run: the command line, the set-up, the served flows."""
