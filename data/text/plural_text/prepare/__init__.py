"""`plural prepare`: text to a pre-tokenized corpus. command.py is the command; every other module is one step
of it.

Layering: imports plural_text.common only.
"""
