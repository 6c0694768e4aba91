"""Finding a model's files by its name, checking that they are safe to open, and reading adapter manifests."""
