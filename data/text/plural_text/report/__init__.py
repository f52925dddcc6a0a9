"""Pages and pictures of what runs, answers and sweeps measured: `plural report` and `plural plot`.

Owns: reading their files, figures, the page. Does not own: the files' formats (docs/running.md,
docs/metrics.md). Thread rule: free of state.
"""
