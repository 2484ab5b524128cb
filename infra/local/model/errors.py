"""What can keep the model server from starting or from answering a request."""


class ModelServerError(Exception):
    """The server can't start; the message is one sentence that holds the fix."""


class BadRequestError(Exception):
    """The request can't be served as it is; `param` names the field at fault."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param
