"""Judged mentions: read, mined from, evaluated on, and what a link profile is fitted to."""
