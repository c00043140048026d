"""Batch: a model's answers to many rows, planned in chunks, done once each, told in a manifest."""
