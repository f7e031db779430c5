"""Calls every public method of the SDK's four clients, found by introspection, and prints a table.

    python methods.py http://127.0.0.1:8000 [API_KEY]

A method works, or is refused by an error of the SDK's own that tells the reason; one that nobody
thought of, one that hangs, and one that does otherwise than it is written here, is a failure.
"""

import asyncio
import inspect
import os
import sys
import warnings

import numpy as np
import tinker
from tinker import types

warnings.simplefilter("ignore")
URL = sys.argv[1]
KEY = sys.argv[2] if len(sys.argv) > 2 else "tml-anything-at-all"
os.environ["TINKER_API_KEY"] = KEY
WORKS, REFUSED = "works", "refused"

service = tinker.ServiceClient(base_url=URL, api_key=KEY, user_metadata={"purpose": "methods"})
name = service.get_server_capabilities().supported_models[0].model_name
training = service.create_lora_training_client(name, rank=4).result()
datums = [
    types.Datum(
        model_input=types.ModelInput.from_ints([5, 6, 7]),
        loss_fn_inputs={"target_tokens": np.asarray([6, 7, 8]), "weights": np.ones(3, dtype=np.float32)},
    )
]
prompt = types.ModelInput.from_ints([5, 6, 7])
params = types.SamplingParams(max_tokens=3, seed=1)
training.forward_backward(datums, "cross_entropy").result()
training.optim_step(types.AdamParams()).result()
state = training.save_state("state").result().path
sampler = training.save_weights_for_sampler("sampler").result().path
external = training.save_weights_external("external").result().path
base = service.create_sampling_client(base_model=name).result()
rest = tinker.RestClient(base_url=URL, api_key=KEY)
session = service.holder.get_session_id()
counter = iter(range(10_000))


def fresh(prefix="n"):
    return f"{prefix}{next(counter)}"


def a_sampler():
    return training.save_weights_for_sampler(fresh("s")).result().path


def learn():
    training.forward_backward(datums, "cross_entropy").result()


def loss(data, logprobs):
    return sum(-own.sum() for own in logprobs), {}


try:
    import torch  # noqa: F401

    CUSTOM = WORKS
except ImportError:
    # The SDK itself needs torch for this one.
    CUSTOM = "needs torch"

run = training.model_id
metadata = {"a": "b"}
# What each method is called with, and what is expected of it.
CALLS = {
    tinker.ServiceClient: (service, {
        "copy_weights": (None, "the SDK wants a project, of which this server has none"),
        "create_custom_loss": (lambda: (lambda logprobs: (-logprobs.sum(), {}), {"logprobs": 1}), CUSTOM),
        "create_lora_training_client": (lambda: (name, 2), WORKS),
        "create_rest_client": (lambda: (), WORKS),
        "create_sampling_client": (lambda: (None, name), WORKS),
        "create_training_client_from_state": (lambda: (state,), WORKS),
        "create_training_client_from_state_with_optimizer": (lambda: (state,), WORKS),
        "get_console_url": (lambda: (), WORKS),
        "get_server_capabilities": (lambda: (), WORKS),
        "get_telemetry": (lambda: (), WORKS),
    }),
    tinker.TrainingClient: (training, {
        "create_sampling_client": (lambda: (sampler,), WORKS),
        "forward": (lambda: (datums, "cross_entropy"), WORKS),
        "forward_backward": (lambda: (datums, "cross_entropy"), WORKS),
        "forward_backward_custom": (lambda: (datums, loss), CUSTOM),
        "get_console_url": (lambda: (), WORKS),
        "get_info": (lambda: (), WORKS),
        "get_telemetry": (lambda: (), WORKS),
        "get_tokenizer": (lambda: (), WORKS),
        "load_state": (lambda: (state,), WORKS),
        "load_state_with_optimizer": (lambda: (state,), WORKS),
        "optim_step": (lambda: (learn(), types.AdamParams())[1:], WORKS),
        "save_state": (lambda: (fresh(),), WORKS),
        "save_weights_and_get_sampling_client": (lambda: (), WORKS),
        "save_weights_external": (lambda: (fresh(),), WORKS),
        "save_weights_for_sampler": (lambda: (fresh(),), WORKS),
    }),
    tinker.SamplingClient: (base, {
        "compute_logprobs": (lambda: (prompt,), WORKS),
        "create": (None, "a constructor, which the others call"),
        "from_sampler_handle": (lambda: (base.get_sampler_handle(),), WORKS),
        "get_base_model": (lambda: (), WORKS),
        "get_sampler_handle": (lambda: (), WORKS),
        "get_telemetry": (lambda: (), WORKS),
        "get_tokenizer": (lambda: (), WORKS),
        "on_queue_state_change": (None, "the SDK's own hook"),
        "sample": (lambda: (prompt, 2, params), WORKS),
    }),
    tinker.RestClient: (rest, {
        "assign_session_project": (lambda: (session, "p"), REFUSED),
        "copy_weights": (lambda: (state, "p"), REFUSED),
        "delete_checkpoint": (lambda: (run, a_sampler().split("/", 3)[3]), WORKS),
        "delete_checkpoint_from_tinker_path": (lambda: (a_sampler(),), WORKS),
        "export_session_trace": (lambda: (session,), REFUSED),
        "get_audit_log": (lambda: (), REFUSED),
        "get_billing_usage": (lambda: ("2026-01-01", "2026-01-02"), REFUSED),
        "get_current_checkpoint_storage_usage": (lambda: (), REFUSED),
        "get_external_weights_urls": (lambda: (external,), WORKS),
        "get_sampler": (lambda: (base._sampling_session_id,), WORKS),
        "get_server_capabilities": (lambda: (), WORKS),
        "get_session": (lambda: (session,), WORKS),
        "get_telemetry": (lambda: (), WORKS),
        "get_training_run": (lambda: (run,), WORKS),
        "get_training_run_by_tinker_path": (lambda: (state,), WORKS),
        "get_weights_info_by_tinker_path": (lambda: (state,), WORKS),
        "list_checkpoints": (lambda: (run,), WORKS),
        "list_sessions": (lambda: (), WORKS),
        "list_training_runs": (lambda: (), WORKS),
        "list_user_checkpoints": (lambda: (), WORKS),
        "publish_checkpoint_from_tinker_path": (lambda: (sampler,), REFUSED),
        "search_sessions": (lambda: (types.SessionSearchRequest(user_metadata={"purpose": "methods"}),), WORKS),
        "set_checkpoint_ttl_from_tinker_path": (lambda: (sampler, 7200), WORKS),
        "unpublish_checkpoint_from_tinker_path": (lambda: (sampler,), REFUSED),
        "whoami": (None, "the SDK asks for JWT, which this server does not use"),
    }),
}


async def awaited(call):
    value = call()
    for _ in range(3):
        if inspect.isawaitable(value):
            value = await asyncio.wait_for(value, 120)
    return value


def result(value):
    return value.result(timeout=120) if hasattr(value, "result") else value


def tried(method, arguments, is_async):
    try:
        given = arguments()
        if is_async:
            asyncio.run(awaited(lambda: method(*given)))
        else:
            result(method(*given))
        return WORKS, ""
    except tinker.TinkerError as error:
        return REFUSED, str(error)


failures = []
print("| client | method | outcome | in its own words |")
print("| --- | --- | --- | --- |")
for client, (instance, calls) in CALLS.items():
    for method, member in inspect.getmembers(client):
        if method.startswith("_") or method in ("holder", "close") or not callable(member):
            continue
        plain = method.removesuffix("_async")
        if plain not in calls:
            failures.append(f"{client.__name__}.{method}: nobody thought of it")
            continue
        arguments, expected = calls[plain]
        if arguments is None or expected not in (WORKS, REFUSED, None):
            outcome, words = "–", expected
        else:
            outcome, words = tried(getattr(instance, method), arguments, method.endswith("_async"))
            if expected is not None and outcome != expected:
                failures.append(f"{client.__name__}.{method}: {outcome}, {words}")
            if outcome == REFUSED and len(words) < 20:
                failures.append(f"{client.__name__}.{method}: refused without a reason")
        words = words.replace("|", "/").replace("\n", " ")[:160]
        print(f"| {client.__name__} | `{method}` | {outcome} | {words} |", flush=True)

service.close("success").result(timeout=60)
print("| ServiceClient | `close` | works | |")
for failure in failures:
    print("FAILED", failure)
print("OK" if not failures else "NOT OK")
sys.exit(bool(failures))
