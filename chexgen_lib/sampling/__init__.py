"""Sampling radiographs from a trained model."""
