"""`plural metrics`: answers to figures. command.py is the command and has the table of metrics; a metric is
one module.

Layering: imports plural_text.common, and from plural_text.prepare the reader of its input formats.
"""
