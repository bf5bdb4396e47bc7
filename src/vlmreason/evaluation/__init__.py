"""Evaluation: generate responses, score them, and keep both in files that need no model to read.

evaluate.py      a learner answers the problems of a task; resumable
predictions.py   the file of responses, appended as they come
kits.py          responses in the files of VLMEvalKit and lmms-eval
problems.py      the problems a file of responses is scored against: re-sampled, or read from metadata.jsonl
scores.py        the verdict on each response, in a file beside it
scoring.py       verdicts added up per level and view; summary.json
groups.py        verdicts added up by the groups that problems belong to
further.py       the evaluations of a run: where each is kept, and all of them as a table
table.py         a summary as a table to print
"""
