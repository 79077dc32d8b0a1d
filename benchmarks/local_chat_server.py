"""Descriptions by a real chat server on this machine, whose model has random weights: its nonsense must be replaced.

    python -m benchmarks.local_chat_server [--records 40] [--seed 0]

A tiny Llama with seeded random weights, its vocabulary trained on our own prompts, is served by `transformers serve` in
a process of its own; it writes and reviews descriptions of records of the shipped tables, greedily, so an answer
depends on nothing but its request. "By the server's log" is what the server wrote of itself; all other numbers are the
client's. A second run over the same records must pay for nothing. Needs the packages of `pip install
"transformers[serving]"`. Writes local_chat_server.csv beside this file.
"""

import argparse
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import torch
from tokenizers import ByteLevelBPETokenizer
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.language_model_faults import cohort
from chexgen_lib.descriptions.check import PASS, check
from chexgen_lib.language_model.protocol import Endpoint, template
from chexgen_lib.language_model.writer import PROMPT, REVIEW_PROMPT, LanguageModel
from chexgen_lib.storage import replacing

MISSING = [package for package in ("fastapi", "uvicorn") if find_spec(package) is None]  # of transformers[serving]
MODEL = "random-weights"
END = "<|end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}" + END + "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
OPTIONS = {"max_completion_tokens": 40, "temperature": 0}
START = 300  # seconds that the server may take to start
# Faults of answers that were JSON of the schema all the same; a usable answer has none.
OF_THE_SCHEMA = (None, "another record's answer", "empty section")


def write_model(folder: Path, seed: int = 0) -> int:
    """Write model and tokenizer to `folder`; the number of parameters."""
    bpe = ByteLevelBPETokenizer()
    words = [template(PROMPT), template(REVIEW_PROMPT)]
    special = [END, "<|system|>", "<|user|>", "<|assistant|>"]
    bpe.train_from_iterator(words, vocab_size=800, special_tokens=special, show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=END, pad_token=END)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,  # with less, every request has the same answer
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return model.num_parameters()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of `transformers serve` with the model in `folder`/MODEL; its log is `folder`/server.log.

    Raises RuntimeError, with the end of the log, where the server does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", MODEL, "--device", "cpu"]
    command += ["--host", address[0], "--port", str(address[1])]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=os.environ | offline, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_until_open(server, address, folder / "server.log")
        yield f"http://{address[0]}:{address[1]}/v1"
    finally:
        server.kill()
        server.wait()


def _wait_until_open(server: subprocess.Popen, address: tuple[str, int], log: Path) -> None:
    """Wait for the port, which is opened when the model has been loaded."""
    deadline = time.monotonic() + START
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(address, timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"`transformers serve` did not start:\n{log.read_text()[-2000:]}")


def run(folder: Path, url: str, df: pl.DataFrame) -> dict[str, object]:
    """Describe the records `df` twice by the server of `folder`; what came of it, for each quantity."""
    endpoint = Endpoint(MODEL, base_url=url, concurrency=4, timeout=300, options=OPTIONS)
    model = LanguageModel(endpoint, cache=folder / "answers.sqlite", with_report=True)
    described, fallbacks = model.describe(df)
    used, faults = model.used().row(0, named=True), answers_by_fault(model.cache)
    answered = completions_in(folder / "server.log")
    again, _ = model.describe(df)
    paid_again = model.used()["answers"].sum() - used["answers"]
    answered_again = completions_in(folder / "server.log") - answered
    passed = check(described)["qc"] == PASS
    return {
        "records": df.height,
        "answers received": used["answers"],
        "answers, by the server's log": answered,
        "answers that were JSON of the schema": sum(n for fault, n in faults.items() if fault in OF_THE_SCHEMA),
        **{f"answers, {fault}": n for fault, n in faults.items() if fault},
        "input tokens": used["input_tokens"],
        "output tokens": used["output_tokens"],
        "model's texts that passed the check": (described["description_origin"] == model.origin).sum(),
        "fallbacks to the grammar": fallbacks.height,
        **{f"fallback, {reason}": n for reason, n in fallbacks["reason"].value_counts().sort("reason").iter_rows()},
        "final texts that pass quality control": passed.sum(),
        "second run, answers paid for": paid_again,
        "second run, answers by the server's log": answered_again,
        "second run, same texts": again.equals(described),
    }


def answers_by_fault(cache: Path) -> dict[str | None, int]:
    """How many answers in the cache have which fault, None for the usable ones."""
    with closing(sqlite3.connect(cache)) as db:
        return dict(db.execute("SELECT fault, count(*) FROM answers GROUP BY fault ORDER BY fault"))


def completions_in(log: Path) -> int:
    """Chat completions that the server says it has sent."""
    return log.read_text().count('"POST /v1/chat/completions HTTP/1.1" 200')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    arguments = parser.parse_args()
    if MISSING:
        parser.error(f'{", ".join(MISSING)} not installed: pip install "transformers[serving]"')
    results = {
        "server": f"transformers serve {version('transformers')}",
        "model": f"LlamaForCausalLM, random weights, seed {arguments.seed}",
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["parameters"] = write_model(folder / MODEL, arguments.seed)
        df = cohort(arguments.records)
        with serving(folder) as url:
            results |= run(folder, url, df)
    table = pl.DataFrame({"quantity": list(results), "value": [str(v) for v in results.values()]})
    with replacing(Path(__file__).with_suffix(".csv")) as partial:
        table.write_csv(partial)
    for quantity, value in results.items():
        tqdm.write(f"{quantity}: {value}")


if __name__ == "__main__":
    main()
