"""The routes, in one file for each subject."""
