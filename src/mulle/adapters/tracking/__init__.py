"""Tracking: the records as the ecosystem's own client sees them."""
