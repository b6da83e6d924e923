"""The colours of figures; nothing is imported, so that they are known without matplotlib."""

# Okabe and Ito's palette, told apart with every common form of colour blindness and in grey.
WIDER, NARROWER, NEUTRAL = "#D55E00", "#0072B2", "#8C8C8C"
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK = "#222222"
