"""Builds, verifies and publishes index generations."""
