"""Fidelity, diversity and factual correctness of generated radiographs."""
