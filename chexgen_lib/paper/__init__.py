"""What the paper reports: its numbers, as published."""
