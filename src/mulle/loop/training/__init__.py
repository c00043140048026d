"""Runs of another shape than a search: fleets, imported models, refits; and what a run leaves in tracking."""
