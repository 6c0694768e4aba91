"""The late-interaction family: re-rankers with MaxSim over token vectors."""
