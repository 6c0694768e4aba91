"""One loss a file, over score matrices or weights. What sentence-transformers has is taken from there.

Shapes: Q queries, P passages of the whole batch (positives and negatives of all queries), N candidates of one query,
V vocabulary. `gold_Q` is the column of each query's own positive.
"""
