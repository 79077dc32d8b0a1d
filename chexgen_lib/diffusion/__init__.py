"""Equations that training and sampling share: objectives and schedulers."""
