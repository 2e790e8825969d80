"""Everything that touches the world: one package for each part of it."""
