"""What widths are worth, learned from trainings of networks whose sites all differ.

`surface` fits accuracy as a function of widths, `spaces` says which vectors a budget allows,
`designs` which of them to train, and `search` does it in turn and decides. Pure numpy and scipy.
"""
