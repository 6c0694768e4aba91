"""The Streamlit UI. It uses the HTTP API only."""
