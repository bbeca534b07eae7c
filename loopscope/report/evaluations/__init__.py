"""The part of a page that shows evaluations: what every depth is worth, early exits, and conditions compared.

`section` puts it together; `groups` gives every condition its seeds and looks.
"""
