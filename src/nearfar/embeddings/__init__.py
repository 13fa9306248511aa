"""Embeddings as a product: written in shards, searched, and looked through for copies, outliers and what to train on."""
