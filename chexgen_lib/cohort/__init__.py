"""The run's cohort: selecting records, making their images and masks, reading them, and auditing patients."""
