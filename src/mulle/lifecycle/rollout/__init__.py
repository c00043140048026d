"""Stage 7: deployments as moves of a pointer, and the canary's verdict from paired losses."""
