"""Public datasets as Record tables, one module per dataset; `registry` lists them.

Each module has a `DATASHEET` and two functions. `load(path=None)` returns records and rejects; `repairs(path=None)`
returns the values that could not be used. Without a path they read the table that torchxrayvision ships in its `data`
folder, if it ships one. Every source row ends as a Record or in the rejects (source, row, image_id, reason; `row` is
the 1-based data row, or the file's name), so `records.height + rejects.height` is the number of source rows. A single
unusable value (an age of 412) does not lose its row: the value becomes null and is listed among the repairs.
"""
