"""Releases begun, judged and written down as the route that serving reads."""
