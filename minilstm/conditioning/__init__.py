"""Ways to give a sequence model a condition: one interface, so that a model changes its strategy by one argument."""
