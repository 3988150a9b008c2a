"""Learning, run by workers; `training.starter` makes the weights that ship in the package."""
