"""The configuration file: TOML in, typed and checked structures out.

* `model`: what may be written (one Struct per table);
* `check`: any Struct against any TOML value, every error at once;
* `lines`: where in the file a key stands;
* `schema`, `document`: the JSON schema for editors, and how it is made;
* `load`: a file to a `Config`, with the checks that look at more than one key.
"""
