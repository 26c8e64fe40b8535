"""Evaluation by free generation: how well edits work, how far they reach, and what they break."""
