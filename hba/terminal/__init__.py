"""Between the commands and whoever reads them: a terminal, a pipe, a file, a program.

* `telling`: the one shape of an error;
* `suggest`: "did you mean";
* `groups`: commands that have commands;
* `files`: files that the user names;
* `screen`: what a stream can show: its width, colours, character set;
* `tables`: the one writer of tables;
* `entry`: what is around every command: whatever goes wrong becomes one line and an exit code.
"""
