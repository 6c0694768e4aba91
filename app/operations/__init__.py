"""What the API, the command line and workers all do, as functions of the application."""
