"""Reader studies: `design` chooses cases and deals them out, `form` writes a blinded file for each reader, `answers`
checks what comes back and unblinds it, `analysis` measures it. `chexgen readers` is the command; docs/reader_study.md
explains it to an organiser."""
