"""What heads learn from and are kept in: examples, embeddings, the registry."""
