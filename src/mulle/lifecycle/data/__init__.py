"""Stage 1: data. Stage, audit, publish; only audited rows become a dataset version."""
