"""The chain of records: each names the one before it, is written once and never edited.

DatasetVersion -> Run -> ModelVersion -> Deployment -> Prediction -> Label -> Window -> Alert -> next Run

What changes (a run's state, an alert's opening and closing, a route) is a sequence of appended events; the
present is derived from them.
"""
