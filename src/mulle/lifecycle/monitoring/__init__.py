"""Stage 8: windows of the prediction log, judged for drift, quality and performance; the alerts they open and close."""
