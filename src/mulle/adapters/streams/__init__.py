"""Streams: topics that are consumed, answered and produced in transactions, and the codecs of their messages."""
