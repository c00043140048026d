"""Sources of rows: files, and frames for replay."""
