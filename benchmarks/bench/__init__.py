"""Speed and memory of nearfar beside plain code and other libraries.

`python -m benchmarks.bench` measures all sections, `python -m benchmarks.bench losses --threads 1 --quick` a part. All
contenders of a row take turns in one process (A B C A B C ...), so that a change in the machine's load meets them all;
what counts is the ratio within a turn. Every section runs in a fresh process with its threads set before torch starts.
Nothing here is a test: machines differ, and only ratios travel.
"""
