"""From Records to curated Records: descriptions, quality control, counts (paper, Dataset Curation)."""
