"""The core, on which all other packages depend: types, ports, errors, settings. It does no I/O beyond manifests."""
