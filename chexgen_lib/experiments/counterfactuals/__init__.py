"""Counterfactual editing of films, measured against true counterfactuals of the embedded cohort."""
