"""The one error that the local stack shows to a person: what is wrong and what to do about it."""

from __future__ import annotations


class StackError(Exception):
    """Something outside the code stops the stack; `fix` is the next thing for a person to do."""

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(f"{problem.rstrip('.')}. {fix.rstrip('.')}.")
        self.problem = problem
        self.fix = fix
