"""The privacy audit of a pool of synthetic radiographs before it is shared (docs/privacy.md).

`folders` reads the images, `likeness` compares them, `copies`, `proximity`, `membership`, `model_error` and `identity`
measure, `planted` makes copies to be found, and `audit` puts all of it into a verdict.
"""
