"""What the control methods answer and what events carry: a Struct for every object, one module per subject.

The layers make plain dictionaries; these Structs say what is in them. Nothing is converted while an adapter runs:
tests/contract asks real adapters and compares. A new field is a line here and `python -m hba.cli.document docs`.
A class's docstring and the aliases of `hba.shapes` (units, forms) become the descriptions in docs/schemas.json.
"""
