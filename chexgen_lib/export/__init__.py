"""Samples, pools and models in the forms that hospitals and model hubs expect."""
