"""The pages of the UI, one module per page."""
