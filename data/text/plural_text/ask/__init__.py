"""`plural ask`: questions to a model and a dialogue with it, in the prompts that it was trained with.
command.py is the command.

Layering: imports plural_text.common, and the templates and tokenizers of plural_text.prepare.
"""
