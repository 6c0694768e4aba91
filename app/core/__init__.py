"""The inside of the house: types, ports, errors, settings, text analysis. No I/O beyond manifests, no torch."""
