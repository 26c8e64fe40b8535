"""Ways to answer rows that edits govern."""
