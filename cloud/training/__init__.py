"""Train a bundle, rank and select its parameters, import a foreign model. Cloud only."""
