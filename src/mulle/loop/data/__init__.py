"""Rows in and rows out: ingest, labels, the online store, the prediction log as a table, sharing."""
