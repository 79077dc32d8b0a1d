"""The run's cohort: choosing records, making images and masks, reading them, and the walk of patients."""
