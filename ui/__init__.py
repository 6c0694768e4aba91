"""The Streamlit UI: talks HTTP to the API and to nothing else."""
