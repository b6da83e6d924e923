"""One file for each seam: a method, a pruning method, a cost, an objective and a network.

No other file knows them but the test that names them as a user would.
"""
