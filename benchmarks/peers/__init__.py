"""The peers' sides: run by each peer's own Python, in its own environment; they import nothing of Mulle."""
