"""The whole evaluation of a run: parts by name, each measured once for each encoder, kept, and told together."""
