"""The run's cohort: selecting records, making images and masks, reading them, and the audit of patients."""
