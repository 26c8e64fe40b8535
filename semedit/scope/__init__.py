"""Scope classifiers."""
