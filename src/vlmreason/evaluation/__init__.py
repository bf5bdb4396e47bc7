"""Evaluation: generate responses, score them, and keep both in files that need no model to read.

generate.py      a learner answers the problems of a task; resumable
predictions.py   the file of responses, appended as they come
problems.py      the problems a file of responses is scored against: re-sampled, or read from metadata.jsonl
scoring.py       verdicts added up per level and view; summary.json
checkpoints.py   which weights of a run are evaluated
segments.py      a response cut into conversion, thought and answer
statistics.py    intervals
table.py         a summary as a table to print
jsonl.py         JSON files read with care
"""
