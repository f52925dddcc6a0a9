"""Parts that several commands share: errors, option types, JSON lines, progress, endpoints, the encoder.

Layering: the lowest part. Imports nothing else of plural_text.
"""
