"""`plural persona`: conversations with a model, and the figures of the personas in them. command.py is the
command.

Layering: the highest part. Imports plural_text.common, the templates, tokenizers and formats of
plural_text.prepare, and the figures of plural_text.metrics.
"""
