"""Descriptions written by a language model: an HTTP client with budget, cache and retries."""
