"""Each claim of speed in one file, measured beside its limit and its peers: ``python -m benchmarks`` (``make bench``)."""
