"""The paper's downstream experiments, one module each."""
