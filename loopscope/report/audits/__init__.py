"""What a page says about audits: cards, tables and figures, one idea a file, made from records alone.

`section` puts them together; `models` gives every model its name and looks; `verdict_styles` has its words and shapes.
"""
