"""The online store: the last values of a key, read by the row's own time."""
