collect_ignore_glob = ["score_*.py"]  # run by other interpreters
