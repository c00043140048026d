"""The loop on history: its past, its client, its policies and its account."""
