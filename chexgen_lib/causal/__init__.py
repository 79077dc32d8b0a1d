"""A structural causal model over the metadata of Records: what would be, were age, sex, view or a finding another."""
