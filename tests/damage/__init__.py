"""Damaged and hostile files, given to every verb that reads them: see `python -m tests.damage --help`.

A case is drawn by a seed: one file of a folder in which every verb has run is changed (`damage.mutations`), a verb
that reads it is run in a process of its own (`damage.sandbox`), and what that process did is judged. Every verb must
either answer or refuse with one line and exit code 2, within bounds of time and memory, and must leave what lies
outside its folder as it was.
"""
