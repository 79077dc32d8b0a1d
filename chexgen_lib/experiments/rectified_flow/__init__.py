"""The second paper: rectified flow against diffusion, control by metadata, balanced cohorts."""
