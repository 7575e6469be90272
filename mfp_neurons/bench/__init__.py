"""Speed and memory of the neurons against their peers, measured side by side in one run.

``mfp-neurons bench`` runs it; :mod:`.tables` and :mod:`.figures` show a result, :mod:`.bars` judges it.
"""
