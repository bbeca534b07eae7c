"""Figures: what they show (`figure`), and the two ways of drawing them (`to_plotly`, `to_matplotlib`)."""
