"""The use cases that the API, the command line and the workers share. Each is a function that takes the `App`."""
