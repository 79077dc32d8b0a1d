"""Every figure is legible at its printed size: drawn from the committed tables of the real run, or from made-up images."""
# PLACEHOLDER
