"""The run store: what stays on disk of every run, append-only, readable by any process, valid after a crash
at any point. Pure; written by the coordinator, read by every process.

    HOME/runs/<run_id>/run.json                  what was known at the start; renamed into place, then fixed
                       events.jsonl              states, groups, outcomes: one line each
                       rank-N.log                all that rank N wrote
                       attempt-A-rank-N.result   the pickled value of rank N, authenticated

Folders are 0700 and files 0600, or 0750 and 0640 with QUARTERDECK_SHARE=group: see `files`.
"""
