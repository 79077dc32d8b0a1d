"""One file per paper figure: a tidy table in, a matplotlib Figure out; the caller saves it (`style.save`)."""
