"""The run store: what stays on disk of every run, append-only, readable by any process, valid after a crash
at any point. Pure; written by the coordinator, read by every process.

A run is a folder below HOME/runs: `layout` has the names of all that is in it, `format` what is known of it
at the start (`run.json`, renamed into place, then fixed) and what becomes of it (`events.jsonl`).

Folders are 0700 and files 0600, or 0750 and 0640 with QUARTERDECK_SHARE=group: see `files`.
"""
