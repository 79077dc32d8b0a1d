"""The options of the commands; light, so that the command line starts at once."""
