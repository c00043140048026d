"""Stage 2: features. Joins in time offline, the same values kept for serving, and read by the row's own time."""
