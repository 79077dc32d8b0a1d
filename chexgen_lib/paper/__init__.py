"""What the papers report, as published: results (`published`) and how they trained (`training`)."""
