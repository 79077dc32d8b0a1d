"""The latent cache and the trainer."""
