"""Prompts under evaluation: who answers, what was answered, what it was worth, and how sure that is."""
