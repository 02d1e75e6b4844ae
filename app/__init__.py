"""The dashboard: Streamlit only. Everything that is computed comes from `backend`."""
