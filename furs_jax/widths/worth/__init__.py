"""What widths are worth, learned from trainings of networks whose sites all differ.

`surface` fits accuracy as a function of widths, `spaces` says which vectors a budget allows,
`whole` solves for whole channels, and `decisions` says what to train next, when to stop and what
to answer. Pure numpy and scipy.
"""
