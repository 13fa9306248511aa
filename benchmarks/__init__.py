"""Measurements beside other libraries, and long trainings: what is too slow to be a test."""
