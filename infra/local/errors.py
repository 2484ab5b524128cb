"""The one error that the local stack shows to a person: what is wrong and what to do about it."""

from __future__ import annotations


class StackError(Exception):
    """Something outside the code stops the stack.

    `problem` is a sentence, `fix` the next thing for a person to do, `detail` what a log says.
    """

    def __init__(self, problem: str, *, fix: str, detail: str = "") -> None:
        sentence = f"{problem.rstrip('.')}. {fix.rstrip('.')}."
        super().__init__(f"{sentence}\n{detail}" if detail else sentence)
        self.problem = problem
        self.fix = fix
        self.detail = detail
