"""Request and response bodies, in one file for each subject. Requests with unknown fields are refused."""
