"""The Python text side of plural: text to corpora, responses to figures.

Layering: this package reads and writes files. It knows no model, no MPI and no torch. Heavy libraries
(h5py, tokenizers, sentencepiece, mistral-common, jinja2) are imported where they are used, so that
`--help` and usage errors answer at once.
"""
