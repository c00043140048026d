"""Our words: records, declarations, ports, errors, clock. Imports nothing else of ours."""
