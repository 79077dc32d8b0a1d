"""Transformer, text encoders and autoencoder of ChexGen."""
