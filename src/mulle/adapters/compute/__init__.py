"""Compute: where the heavy work of a stage runs, in processes that can be killed."""
