"""The notebooks as stages of the DAG."""
