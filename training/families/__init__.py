"""What learns: a family of models each."""
