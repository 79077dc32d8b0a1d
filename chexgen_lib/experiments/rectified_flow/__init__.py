"""The second paper (RadiT, arXiv 2606.19460): rectified flow against diffusion, metadata control, balanced cohorts."""
