"""The model families that can be trained, one subpackage each."""
