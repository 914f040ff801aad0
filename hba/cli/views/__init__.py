"""The subjects of `hba show`, for people. Each module has `view(value)`, where value is what `show.<subject>` returns.

They show what they know best first and leave nothing out: whatever a layer reports beyond that is printed as it comes.
"""
