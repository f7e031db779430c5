"""Measures several training clients beside each other at a running server.

    python side_by_side.py http://127.0.0.1:8000 CLIENTS DATUMS TOKENS STEPS

Each client makes STEPS steps on DATUMS texts of TOKENS tokens; three times, behind one that is not counted. Once
against a server with `--no-shared-passes` and once without, it tells what shared passes bring.
"""

import os
import sys
import threading
import time

import numpy as np
import tinker
from tinker import types

URL = sys.argv[1]
CLIENTS, DATUMS, TOKENS, STEPS = map(int, sys.argv[2:6])
os.environ.setdefault("TINKER_API_KEY", "tml-anything-at-all")

service = tinker.ServiceClient(base_url=URL)
capabilities = tinker.RestClient(base_url=URL).get_server_capabilities().result()
name = capabilities.supported_models[0].model_name
clients = [service.create_lora_training_client(name, rank=16, seed=number).result() for number in range(CLIENTS)]


def datum(seed):
    tokens = np.random.default_rng(seed).integers(10, 60, TOKENS + 1)
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1].tolist()),
        loss_fn_inputs={"target_tokens": tokens[1:], "weights": np.ones(TOKENS, dtype=np.float32)})


def train(number, steps):
    batch = [datum(100 * number + index) for index in range(DATUMS)]
    for _ in range(steps):
        passes = clients[number].forward_backward(batch, "cross_entropy")
        clients[number].optim_step(types.AdamParams(learning_rate=1e-4)).result()
        passes.result()


def seconds(steps):
    threads = [threading.Thread(target=train, args=(number, steps)) for number in range(CLIENTS)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - started


seconds(1)
times = sorted(seconds(STEPS) for _ in range(3))
tokens = CLIENTS * DATUMS * TOKENS * STEPS
print(f"{CLIENTS} clients, {STEPS} steps of {DATUMS} x {TOKENS} tokens: {', '.join(f'{t:.2f}' for t in times)} s, "
      f"{tokens / times[1]:.0f} tokens/s")
service.close("success").result()
print("OK")
