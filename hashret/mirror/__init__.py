"""An index that mirrors a folder of photographs.

`syncing` is `hashret sync`. `photographs` looks at what is there, `plan` compares it with the index, and
`pending` keeps what was encoded and is not in the index yet.
"""
