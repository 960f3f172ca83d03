"""The command `messagehub`.

main         the group; loads each command when it is used
connection   the options and the client that every command of a client shares
tables       rows for people, for programs and for pipes
printable    text that a terminal only shows
output       standard output that is full, closed, or not read to its end
"""
