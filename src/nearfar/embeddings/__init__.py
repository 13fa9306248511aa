"""Embeddings as a product: written in shards, searched, and gone through for copies, outliers and what to train on."""
