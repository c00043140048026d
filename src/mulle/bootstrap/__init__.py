"""Settings in, wired parts out: the only place where adapters meet the rest."""
