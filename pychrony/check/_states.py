"""The states of a clock, with the numbers and names of Nagios."""

OK, WARNING, CRITICAL, UNKNOWN = range(4)
NAMES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")

# A clock that is known to be wrong is worse than an unknown one.
WORST_FIRST = (CRITICAL, UNKNOWN, WARNING, OK)
