"""Loads a running server with the official SDK: sampling clients and training clients side by side.

    python load.py http://127.0.0.1:8000 SECONDS [SAMPLING_CLIENTS [TRAINING_CLIENTS]]

Nothing may fail, be lost or come twice; it prints how long a sample of 16 tokens takes.
"""

import os
import sys
import threading
import time

import numpy as np
import tinker
from tinker import types

URL, SECONDS = sys.argv[1], float(sys.argv[2])
SAMPLING = int(sys.argv[3]) if len(sys.argv) > 3 else 64
TRAINING = int(sys.argv[4]) if len(sys.argv) > 4 else 4
os.environ.setdefault("TINKER_API_KEY", "tml-anything-at-all")

service = tinker.ServiceClient(base_url=URL)
name = tinker.RestClient(base_url=URL).get_server_capabilities().result().supported_models[0].model_name
base = service.create_sampling_client(base_model=name).result()
end = time.monotonic() + SECONDS
times, failures, steps = [], [], []
lock = threading.Lock()
# What a seed draws, once and for all: it must be the same whoever else is served.
expected = {}


def sample(number):
    seed = 0
    while time.monotonic() < end:
        seed = (seed + 1) % 5
        started = time.monotonic()
        params = types.SamplingParams(max_tokens=16, seed=seed, stop=[])
        prompt = types.ModelInput.from_ints([3 + number % 7, 4, 5])
        answer = base.sample(prompt, 1, params).result()
        took = time.monotonic() - started
        tokens = tuple(answer.sequences[0].tokens)
        with lock:
            times.append(took)
            if len(tokens) != 16 or expected.setdefault((number % 7, seed), tokens) != tokens:
                failures.append(f"seed {seed}: {tokens}")


def train(number):
    client = service.create_lora_training_client(name, rank=2 + number, seed=number).result()
    datum = types.Datum(
        model_input=types.ModelInput.from_ints([3, 4, 5, 6]),
        loss_fn_inputs={"target_tokens": np.asarray([4, 5, 6, 7]), "weights": np.ones(4, dtype=np.float32)})
    losses = []
    while time.monotonic() < end:
        passes = client.forward_backward([datum] * 8, "cross_entropy")
        client.optim_step(types.AdamParams(learning_rate=1e-3)).result()
        losses.append(passes.result().metrics["loss:sum"])
    with lock:
        steps.append(len(losses))
        if len(losses) > 5 and not losses[-1] < losses[0]:
            failures.append(f"model {number} did not learn: {losses[0]} {losses[-1]}")


def guarded(work, number):
    try:
        work(number)
    except Exception as error:  # noqa: BLE001
        with lock:
            failures.append(f"{type(error).__name__}: {error}")


threads = [threading.Thread(target=guarded, args=(sample, n)) for n in range(SAMPLING)]
threads += [threading.Thread(target=guarded, args=(train, n)) for n in range(TRAINING)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

times.sort()
print(f"{len(times)} samples of {SAMPLING} clients in {SECONDS:.0f} s: "
      f"p50 {times[len(times) // 2] * 1e3:.0f} ms, p99 {times[len(times) * 99 // 100] * 1e3:.0f} ms")
print(f"steps of {TRAINING} training clients: {steps}")
for failure in failures[:10]:
    print("FAILED", failure)
service.close("success").result()
print("OK" if not failures else "NOT OK")
sys.exit(bool(failures))
