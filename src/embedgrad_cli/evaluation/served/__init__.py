"""Prompts under evaluation by chat: an OpenAI-compatible server answers, no model is loaded, and torch stays out."""
