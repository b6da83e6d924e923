"""Channel search by FLOPs utilisation ratios."""
