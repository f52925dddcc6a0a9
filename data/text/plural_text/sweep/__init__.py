"""Ablation sweeps: settings times seeds, trained and measured once each, and what they show.

The way of a sweep: sweep_file.py reads it, expand.py makes its runs, identity.py names them by what decides
their result, folder.py keeps what is known of each, work.py does one run, local.py and slurm.py do all of
them, table.py and statistics.py say what came out.
"""
