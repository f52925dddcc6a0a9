"""`plural watch`: runs while they train and after. command.py is the command.

Layering: imports plural_text.common.
"""
