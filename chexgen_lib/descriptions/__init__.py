"""Prompts from metadata and reports: grammar, report parser, checks, counts."""
