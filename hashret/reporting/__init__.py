"""`hashret report`: a run on one page, its figures, tables and plots."""
