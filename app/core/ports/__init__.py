"""The ports: small protocols that engines, encoders and job queues implement."""
