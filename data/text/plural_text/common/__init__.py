"""What every command of the package needs: errors, option types, JSON lines, progress, endpoints, the
encoder.

Layering: the lowest part. Imports nothing else of plural_text.
"""
