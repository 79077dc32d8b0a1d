"""The command line, `chexgen`."""
