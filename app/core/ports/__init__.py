"""The seams: small protocols that engines, encoders and job carriers implement."""
