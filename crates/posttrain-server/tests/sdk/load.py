"""Loads a running server with the official SDK: sampling clients and training clients side by side.

    python load.py http://127.0.0.1:8000 SECONDS [SAMPLING_CLIENTS [TRAINING_CLIENTS [exact]]]

Nothing may fail, be lost or come twice, and what is answered must be an answer to what was asked: the server,
when nobody else is there any more, gives it the log-probabilities that came with it. It prints how long a sample
of 16 tokens takes. With `exact` a seed has to draw the same whoever else is served, as it does in f32; in bf16 a
batch's size is seen in the last bits, and so is now and then another token drawn.
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
EXACT = sys.argv[5:] == ["exact"]
os.environ.setdefault("TINKER_API_KEY", "tml-anything-at-all")

service = tinker.ServiceClient(base_url=URL)
name = tinker.RestClient(base_url=URL).get_server_capabilities().result().supported_models[0].model_name
base = service.create_sampling_client(base_model=name).result()
end = time.monotonic() + SECONDS
times, failures, steps = [], [], []
lock = threading.Lock()
# What each prompt and seed drew first, and every answer of some of the clients.
drawn, others, kept = {}, [], []


def prompt_of(number):
    return [3 + number % 7, 4, 5]


def sample(number):
    seed = 0
    while time.monotonic() < end:
        seed = (seed + 1) % 5
        started = time.monotonic()
        params = types.SamplingParams(max_tokens=16, seed=seed, stop=[])
        prompt = prompt_of(number)
        answer = base.sample(types.ModelInput.from_ints(prompt), 1, params).result().sequences[0]
        took = time.monotonic() - started
        tokens = tuple(answer.tokens)
        with lock:
            times.append(took)
            if len(tokens) != 16 or len(answer.logprobs) != 16:
                failures.append(f"seed {seed}: {len(tokens)} tokens")
            if drawn.setdefault((number % 7, seed), tokens) != tokens:
                others.append((number, seed, tokens))
            if number < 8:
                kept.append((prompt, answer.tokens, answer.logprobs))


def check_answers():
    """How far, on average and at most, an answer's log-probabilities are from what the server gives it alone."""
    gaps = []
    for prompt, tokens, logprobs in kept[:: max(1, len(kept) // 100)]:
        alone = base.compute_logprobs(types.ModelInput.from_ints(prompt + list(tokens))).result()[len(prompt):]
        gaps.append(float(np.abs(np.asarray(alone, dtype=np.float32) - np.asarray(logprobs, dtype=np.float32)).mean()))
    print(f"{len(gaps)} answers read again: {np.mean(gaps):.2g} nats a token apart, {max(gaps):.2g} at most")
    # Another prompt's answer is whole nats apart.
    if max(gaps) > 0.3:
        failures.append("an answer is not one to what was asked")


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

check_answers()
print(f"{len(others)} answers are others than the first of their prompt and seed")
if EXACT and others:
    failures.append(f"a seed drew otherwise: {others[:3]}")
times.sort()
print(f"{len(times)} samples of {SAMPLING} clients in {SECONDS:.0f} s: "
      f"p50 {times[len(times) // 2] * 1e3:.0f} ms, p99 {times[len(times) * 99 // 100] * 1e3:.0f} ms")
print(f"steps of {TRAINING} training clients: {steps}")
for failure in failures[:10]:
    print("FAILED", failure)
service.close("success").result()
print("OK" if not failures else "NOT OK")
sys.exit(bool(failures))
