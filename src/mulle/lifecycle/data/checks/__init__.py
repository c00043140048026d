"""The audit of a batch: checks as one plan over its rows, and checks proposed from a profile."""
