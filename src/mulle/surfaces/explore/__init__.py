"""The page that `data explore` writes: a table from every side, or two versions of it side by side."""
