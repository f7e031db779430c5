"""Measures how long a light client waits beside a heavy one at a running server.

    python fairness.py http://127.0.0.1:8000 SECONDS

The light ones make a step on one text of 16 tokens, and draw one sample of 16 tokens. The heavy ones always have
three steps on 16 texts of 128 tokens under way, and three times 64 samples of 128 tokens.
"""

import os
import sys
import threading
import time

import numpy as np
import tinker
from tinker import types

URL, SECONDS = sys.argv[1], float(sys.argv[2])
os.environ.setdefault("TINKER_API_KEY", "tml-anything-at-all")

service = tinker.ServiceClient(base_url=URL)
capabilities = tinker.RestClient(base_url=URL).get_server_capabilities().result()
name = capabilities.supported_models[0].model_name
other = tinker.ServiceClient(base_url=URL)
light, heavy = (own.create_lora_training_client(name, rank=8, seed=1).result() for own in (service, other))
light_base, heavy_base = (own.create_sampling_client(base_model=name).result() for own in (service, other))


def texts(count, length):
    tokens = np.random.default_rng(length).integers(10, 60, (count, length + 1))
    return [types.Datum(
        model_input=types.ModelInput.from_ints(row[:-1].tolist()),
        loss_fn_inputs={"target_tokens": row[1:], "weights": np.ones(length, dtype=np.float32)}) for row in tokens]


def step(client, batch):
    passes = client.forward_backward(batch, "cross_entropy")
    return [passes, client.optim_step(types.AdamParams(learning_rate=1e-4))]


def draw(base, samples, tokens):
    params = types.SamplingParams(max_tokens=tokens, seed=1, stop=[])
    return [base.sample(types.ModelInput.from_ints([3, 4, 5]), samples, params)]


def waits(make, until):
    """How long each call takes of a client that has one at a time."""
    times = []
    while time.monotonic() < until:
        started = time.monotonic()
        for future in make():
            future.result()
        times.append(time.monotonic() - started)
    return times


def keeps_busy(make, until, times):
    """Calls three at a time."""
    under_way = [(time.monotonic(), make()) for _ in range(3)]
    while under_way:
        _, futures = under_way.pop(0)
        for future in futures:
            future.result()
        times.append(time.monotonic())
        if time.monotonic() < until:
            under_way.append((time.monotonic(), make()))


def shown(name, times):
    times = sorted(times)
    return f"{name}: median {times[len(times) // 2]:.2f} s, longest {times[-1]:.2f} s, {len(times)} calls"


small, large = texts(1, 16), texts(16, 128)
kinds = {
    "a step": (lambda: step(light, small), lambda: step(heavy, large)),
    "a sample": (lambda: draw(light_base, 1, 16), lambda: draw(heavy_base, 64, 128)),
}
for kind, (of_light, of_heavy) in kinds.items():
    print(shown(f"{kind}, alone", waits(of_light, time.monotonic() + SECONDS / 2)))
    until, done = time.monotonic() + SECONDS, []
    started = time.monotonic()
    thread = threading.Thread(target=keeps_busy, args=(of_heavy, until, done))
    thread.start()
    print(shown(f"{kind}, beside a heavy client", waits(of_light, until)))
    thread.join()
    each = np.diff([started] + done).tolist()
    print(shown("  the heavy one's, one after another", each))
service.close("success").result()
other.close("success").result()
print("OK")
