"""Training of class heads: labelled boxes → embeddings → a calibrated logistic regression, gated."""
