"""Drives a running server with the official SDK: every step asserts, the first that fails ends it.

    python drive.py http://127.0.0.1:8000 [API_KEY]

It needs no torch.
"""

import json
import math
import sys
import urllib.request

import numpy as np
import safetensors.numpy
import tinker
from tinker import types

URL = sys.argv[1]
KEY = sys.argv[2] if len(sys.argv) > 2 else "tml-anything-at-all"


def datum(tokens, targets, **inputs):
    arrays = {name: np.asarray(values, dtype=np.float32) for name, values in inputs.items()}
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens),
        loss_fn_inputs={"target_tokens": np.asarray(targets, dtype=np.int64), **arrays},
    )


def raises(kind, call, *words):
    try:
        call()
    except kind as error:
        text = str(error)
        assert all(word in text for word in words), (words, text)
        return text
    raise AssertionError(f"{words}: nothing was refused")


def logprobs_of(result):
    return [out["logprobs"].to_numpy() for out in result.loss_fn_outputs]


service = tinker.ServiceClient(base_url=URL, api_key=KEY)
capabilities = tinker.RestClient(base_url=URL, api_key=KEY).get_server_capabilities().result()
name = capabilities.supported_models[0].model_name
print("model:", name)

training = service.create_lora_training_client(name, rank=8, seed=7).result()
info = training.get_info()
assert info.model_data.model_name == name and info.lora_rank == 8, info

# --- log-probabilities: forward, backward, prompt and sampled ones agree -------------------------
rng = np.random.default_rng(0)
text = [int(token) for token in rng.integers(5, 60, size=12)]
read, targets = text[:-1], text[1:]
one = [datum(read, targets, weights=np.ones(11))]
forward = training.forward(one, "cross_entropy").result()
backward = training.forward_backward(one, "cross_entropy").result()
own = logprobs_of(forward)[0]
assert own.shape == (11,)
assert np.abs(own - logprobs_of(backward)[0]).max() < 1e-4
for result in (forward, backward):
    assert abs(result.metrics["loss:sum"] + own.sum()) < 1e-3, result.metrics

base = service.create_sampling_client(base_model=name).result()
prompt = base.compute_logprobs(types.ModelInput.from_ints(text)).result()
assert prompt[0] is None and len(prompt) == 12
# A fresh adapter is the base.
assert np.abs(np.asarray(prompt[1:], dtype=np.float32) - own).max() < 2e-3
print("forward, backward and prompt log-probabilities agree")

# --- targets: (N, K) and CSR -----------------------------------------------------------------------
wide = np.stack([targets, np.roll(targets, 1), np.full(11, 3)], axis=1)
weights = np.zeros((11, 3), dtype=np.float32)
weights[:, 0] = 1.0
dense = training.forward([datum(read, wide, weights=weights)], "cross_entropy").result()
assert logprobs_of(dense)[0].shape == (11, 3)
assert np.abs(logprobs_of(dense)[0][:, 0] - own).max() < 1e-4

# Each row's target stands in another column than its neighbor's.
crow, columns = list(range(12)), [row % 3 for row in range(11)]
sparse = types.Datum(
    model_input=types.ModelInput.from_ints(read),
    loss_fn_inputs={
        "target_tokens": types.TensorData(
            data=np.asarray(targets, dtype=np.int64), dtype="int64", shape=[11, 3],
            sparse_crow_indices=crow, sparse_col_indices=columns),
        "weights": types.TensorData(
            data=np.ones(11, dtype=np.float32), dtype="float32", shape=[11, 3],
            sparse_crow_indices=crow, sparse_col_indices=columns),
    },
)
csr = training.forward([sparse], "cross_entropy").result()
assert np.abs(logprobs_of(csr)[0][range(11), columns] - own).max() < 1e-4
assert abs(csr.metrics["loss:sum"] - forward.metrics["loss:sum"]) < 1e-3
mixed = training.forward([one[0], datum(read, wide, weights=weights), one[0]], "cross_entropy").result()
assert [array.shape for array in logprobs_of(mixed)] == [(11,), (11, 3), (11,)]
print("targets of shape (N,), (N, K) and CSR agree")

# --- every loss against its formula ----------------------------------------------------------------
q = own + rng.normal(0, 0.5, 11).astype(np.float32)
advantages = rng.normal(0, 1, 11).astype(np.float32)
ratio = np.exp(own - q)
mask = np.ones(11, dtype=np.float32)
mask[:3] = 0.0
masked = np.where(mask > 0, advantages, 0.0).astype(np.float32)
sequence = np.exp(((own - q) * mask).sum() / mask.sum())
clip = lambda values, low, high: np.minimum(values * advantages, np.clip(values, low, high) * advantages)
losses = {
    "importance_sampling": (-(ratio * advantages).sum(), None, {}),
    "ppo": (-clip(ratio, 0.8, 1.2).sum(), None, {}),
    "cispo": (-(np.clip(ratio, 0.0, 4.0) * own * advantages).sum(), None, {}),
    "dro": (-(own * advantages - 0.5 * 0.1 * (own - q) ** 2).sum(), {"beta": 0.1}, {}),
    "gspo": (
        -np.minimum(sequence * masked, np.clip(sequence, 0.9, 1.1) * masked)[3:].sum(),
        {"clip_low_threshold": 0.9, "clip_high_threshold": 1.1},
        {"sequence_ratio_mask": mask},
    ),
}
for loss, (expected, config, more) in losses.items():
    given = masked if loss == "gspo" else advantages
    batch = [datum(read, targets, logprobs=q, advantages=given, **more)]
    for call in (training.forward, training.forward_backward):
        got = call(batch, loss, config).result().metrics["loss:sum"]
        assert abs(got - expected) < 1e-3 * max(1, abs(expected)), (loss, got, expected)
    print(f"{loss}: {expected:.4f}")

# Both bounds of a ratio, with the sign of advantage at which each holds.
for loss, low, high in (("ppo", 0.8, 1.2), ("gspo", 0.8, 1.2)):
    more = {"sequence_ratio_mask": np.ones(11, dtype=np.float32)} if loss == "gspo" else {}
    for shift, sign, bound in ((0.7, -1.0, low), (-0.7, 1.0, high)):
        given = np.full(11, sign, dtype=np.float32)
        batch = [datum(read, targets, logprobs=own + np.float32(shift), advantages=given, **more)]
        got = training.forward(batch, loss).result().metrics["loss:sum"]
        assert abs(got + 11 * sign * bound) < 1e-2, (loss, shift, got)
print("ratios are bounded on both sides")

# --- and its gradient: where the policy is the sampler's and every advantage 1, that of cross-entropy -------
def norm_of(loss, **inputs):
    client = service.create_lora_training_client(name, rank=8, seed=7).result()
    client.forward_backward([datum(read, targets, **inputs)], loss).result()
    return client.optim_step(types.AdamParams(learning_rate=1e-9)).result().metrics["unclipped_grad_l2:mean"]


ones = np.ones(11, dtype=np.float32)
plain = norm_of("cross_entropy", weights=ones)
for loss in losses:
    more = {"sequence_ratio_mask": ones} if loss == "gspo" else {}
    norm = norm_of(loss, logprobs=own, advantages=ones, **more)
    assert abs(norm / plain - 1) < 1e-3, (loss, norm, plain)
print("each loss's gradient is a sum over tokens")

# --- refusals in words -----------------------------------------------------------------------------
failed = tinker.RequestFailedError
rl = dict(logprobs=q, advantages=advantages)
raises(failed, lambda: training.forward(one, "stable_reinforce").result(), "not published")
raises(failed, lambda: training.forward(one, "ppo").result(), "logprobs")
raises(failed, lambda: training.forward([datum(read, targets, **rl)], "ppo", {"clip": 1.0}).result(), "clip")
raises(failed, lambda: training.forward([datum([10**6], [3], weights=[1.0])], "cross_entropy").result(), "1000000")
raises(failed, lambda: training.forward([datum([-1], [3], weights=[1.0])], "cross_entropy").result(), "-1")
raises(failed, lambda: training.forward([datum([3], [3], weights=[math.nan])], "cross_entropy").result(), "NaN")
raises(failed, lambda: training.forward([datum(read, targets[:-1], weights=np.ones(10))], "cross_entropy").result(), "11")
image = types.ModelInput(chunks=[types.ImageChunk(data=b"x", format="png", expected_tokens=1)])
picture = types.Datum(model_input=image, loss_fn_inputs={"target_tokens": np.asarray([3])})
raises(failed, lambda: training.forward([picture], "cross_entropy").result(), "text alone")
raises(failed, lambda: training.optim_step(types.DimuonParams(learning_rate=1e-3)).result(), "dimuon")
raises(tinker.APIStatusError, lambda: service.create_lora_training_client("another/model").result(), "another/model")
print("what cannot be served is refused in words")

# --- gradients add up, and a step clears them ------------------------------------------------------
def adam(learning_rate, **more):
    return types.AdamParams(learning_rate=learning_rate, **more)


def trained(split):
    """The log-probabilities after two steps on two datums, in one call or in two, and the gradients' norms."""
    client = service.create_lora_training_client(name, rank=8, seed=11).result()
    other = [int(token) for token in np.random.default_rng(1).integers(5, 60, size=9)]
    both = [one[0], datum(other[:-1], other[1:], weights=np.ones(8))]
    norms = []
    for _ in range(2):
        futures = [client.forward_backward([d], "cross_entropy") for d in both] if split \
            else [client.forward_backward(both, "cross_entropy")]
        # With an ε this large a step is smooth in the gradient: rounding turns no sign.
        step = client.optim_step(adam(1e-2, eps=1.0))
        for future in futures:
            future.result()
        norms.append(step.result().metrics["unclipped_grad_l2:mean"])
    return logprobs_of(client.forward(both, "cross_entropy").result()), norms, client


(whole, norms, client), (parts, other_norms, _) = trained(False), trained(True)
for a, b in zip(whole, parts):
    assert np.abs(a - b).max() < 2e-4, np.abs(a - b).max()
assert np.allclose(norms, other_norms, rtol=1e-4), (norms, other_norms)
assert np.abs(whole[0] - own).max() > 1e-2, "nothing was learnt"
raises(failed, lambda: client.optim_step(adam(1e-2)).result(), "no gradient")
print("split call = whole call; a step clears what was added up")

# --- clients side by side: what shares a pass is what it is alone ------------------------------------
def shared_calls():
    asked = urllib.request.Request(f"{URL}/metrics", headers={"X-API-Key": KEY})
    page = urllib.request.urlopen(asked).read().decode()
    return int(next(line for line in page.splitlines() if line.startswith("posttrain_training_calls_shared_total ")).split()[1])


def of_a_client(number):
    """A client that has made a step, and a text of its own."""
    own = service.create_lora_training_client(name, rank=2 + 3 * number, seed=40 + number).result()
    tokens = [int(token) for token in np.random.default_rng(50 + number).integers(5, 60, size=6 + 2 * number)]
    batch = [datum(tokens[:-1], tokens[1:], weights=np.ones(len(tokens) - 1))]
    own.forward_backward(batch, "cross_entropy").result()
    own.optim_step(adam(1e-1, eps=1.0)).result()
    return own, batch


def passes_of(side_by_side):
    """What four passes of each of three clients gave, and the norm of their gradient."""
    clients = [of_a_client(number) for number in range(3)]
    busy, long = of_a_client(0)[0], [int(token) for token in rng.integers(5, 60, size=40)]
    results, held = [[] for _ in clients], []
    for _ in range(4):
        if side_by_side:
            # While this is done, the others' calls come to wait for each other.
            held.append(busy.forward([datum(long[:-1], long[1:], weights=np.ones(39))] * 100, "cross_entropy"))
        for (own, batch), own_results in zip(clients, results):
            call = own.forward_backward(batch, "cross_entropy")
            own_results.append(call if side_by_side else call.result())
    for call in held:
        call.result()
    results = [[logprobs_of(r.result() if side_by_side else r)[0] for r in mine] for mine in results]
    return results, [own.optim_step(adam(1e-1)).result().metrics["unclipped_grad_l2:mean"] for own, _ in clients]


before = shared_calls()
alone, norms = passes_of(False)
assert shared_calls() == before, "nobody was there to share with"
beside, other_norms = passes_of(True)
assert shared_calls() > before, "no pass was shared"
for mine, others in zip(alone, beside):
    assert np.abs(np.asarray(mine) - np.asarray(others)).max() < 1e-4
assert np.allclose(norms, other_norms, rtol=1e-3), (norms, other_norms)
print("clients that share passes get what they get alone")

# --- AdamW's first step in closed form: B by the learning rate, A by the decay alone --------------
def adapter_of(model, name):
    """The adapter's tensors by their names, as a PEFT folder has them."""
    path = model.save_weights_external(name).result().path
    rest = tinker.RestClient(base_url=URL, api_key=KEY)
    urls = rest.get_external_weights_urls(path).result().urls
    return safetensors.numpy.load(urllib.request.urlopen(urls["adapter_model.safetensors"]).read())


fresh = service.create_lora_training_client(name, rank=4, seed=3).result()
start = adapter_of(fresh, "start")
fresh.forward_backward(one, "cross_entropy").result()
fresh.optim_step(adam(1e-3, weight_decay=0.5, grad_clip_norm=1.0)).result()
stepped = adapter_of(fresh, "stepped")
for key in start:
    if "lora_B" in key:
        # B is zero at first: m̂/√v̂ is the gradient's sign, whatever it was clipped to.
        assert not start[key].any(), key
        moved = np.abs(stepped[key])
        assert moved.max() < 1e-3 * (1 + 1e-4), (key, moved.max())
        # All but those few whose gradient is as small as ε.
        assert (moved > 0.99e-3).mean() > 0.95, (key, (moved > 0.99e-3).mean())
    else:
        # And so A has no gradient.
        assert np.abs(stepped[key] - start[key] * (1 - 1e-3 * 0.5)).max() < 1e-6, key
print("AdamW's step in closed form")

# With an ε this large a step is lr·g/(|g| + 1), and a clipped gradient's is that of a shorter g.
def stepped(name_of, clip):
    model = service.create_lora_training_client(name, rank=4, seed=3).result()
    model.forward_backward(one, "cross_entropy").result()
    norm = model.optim_step(adam(1e-2, eps=1.0, grad_clip_norm=clip)).result().metrics["unclipped_grad_l2:mean"]
    weights = adapter_of(model, name_of)
    return norm, np.concatenate([np.abs(weights[key]).ravel() for key in sorted(weights) if "lora_B" in key])


norm, free_step = stepped("free", 0.0)
_, clipped_step = stepped("clipped", norm / 2)
gradient = free_step / (1e-2 - free_step) / 2
assert np.abs(clipped_step - 1e-2 * gradient / (gradient + 1)).max() < 1e-6, "gradients are clipped to the norm"
print("gradients are clipped")


# Every constant is read: whatever is other than its default gives other weights.
def walked(**constants):
    model = service.create_lora_training_client(name, rank=4, seed=3).result()
    for shift in range(3):
        model.forward_backward([datum(read, np.roll(targets, shift), weights=np.ones(11))], "cross_entropy").result()
        model.optim_step(adam(1e-2, **constants)).result()
    return logprobs_of(model.forward(one, "cross_entropy").result())[0]


usual = walked()
for constants in (dict(beta1=0.0), dict(beta2=0.5), dict(eps=1.0), dict(weight_decay=5.0), dict(grad_clip_norm=1e-3, eps=1e-3)):
    assert np.abs(walked(**constants) - usual).max() > 1e-4, constants
print("every constant of AdamW is read")

# --- which layers are trained ----------------------------------------------------------------------
attention = service.create_lora_training_client(name, rank=4, seed=3, train_mlp=False, train_unembed=False).result()
assert all("self_attn" in key for key in adapter_of(attention, "attention"))
mlp = service.create_lora_training_client(name, rank=4, seed=3, train_attn=False, train_unembed=False).result()
assert all("mlp" in key for key in adapter_of(mlp, "mlp"))
print("layers are those that were asked for")

# --- samples ---------------------------------------------------------------------------------------
ask = types.ModelInput.from_ints(text[:6])
params = types.SamplingParams(max_tokens=8, seed=5, temperature=1.0)
first = base.sample(ask, num_samples=3, sampling_params=params).result()
again = base.sample(ask, num_samples=3, sampling_params=params).result()
tokens = [list(seq.tokens) for seq in first.sequences]
assert tokens == [list(seq.tokens) for seq in again.sequences], "a seed is a seed"
assert len({tuple(t) for t in tokens}) > 1, "samples of one seed differ"
other = base.sample(ask, 3, types.SamplingParams(max_tokens=8, seed=6)).result()
assert tokens != [list(seq.tokens) for seq in other.sequences], "the seed is read"
for temperature in (1.0, 0.5):
    drawn = base.sample(ask, 1, types.SamplingParams(max_tokens=6, seed=3, temperature=temperature), topk_sample_logprobs=3) \
        .result().sequences[0]
    scored = base.sample(types.ModelInput.from_ints(text[:6] + list(drawn.tokens)), 1,
                         types.SamplingParams(max_tokens=1), include_prompt_logprobs=True,
                         topk_prompt_logprobs=2).result()
    if temperature == 1.0:
        later = np.asarray(scored.prompt_logprobs[6:], dtype=np.float32)
        assert np.abs(later - np.asarray(drawn.logprobs)).max() < 2e-3
    assert scored.topk_prompt_logprobs[0] is None and len(scored.topk_prompt_logprobs[1]) == 2
    top = np.asarray(drawn.topk_logprobs, dtype=np.float32)
    assert top.shape == (len(drawn.tokens), 3, 2), top.shape
    # Tinker's log-probabilities are those of the distribution that was sampled: its most probable tokens bound them.
    assert (np.asarray(drawn.logprobs) <= top[:, 0, 1] + 1e-3).all()
    listed = [(float(logprob), dict(row).get(token)) for token, logprob, row in
              zip(drawn.tokens, drawn.logprobs, drawn.topk_logprobs)]
    assert all(other is None or abs(one - other) < 2e-3 for one, other in listed), listed
last = base.sample(ask, 1, types.SamplingParams(max_tokens=1), include_prompt_logprobs=True,
                   prompt_logprobs_last_n=2).result()
assert [value is None for value in last.prompt_logprobs] == [True] * 4 + [False] * 2, last.prompt_logprobs

# Without any stop, not even the model's own end; then the same up to a token of it.
long = base.sample(ask, 1, types.SamplingParams(max_tokens=8, seed=5, stop=[])).result().sequences[0]
assert len(long.tokens) == 8 and long.stop_reason == "length"
stop = long.tokens[3]
cut = base.sample(ask, 1, types.SamplingParams(max_tokens=8, seed=5, stop=[stop])).result().sequences[0]
assert cut.stop_reason == "stop" and len(cut.tokens) <= 4, cut
assert list(cut.tokens) == list(long.tokens)[: len(cut.tokens)], (cut.tokens, long.tokens)
# What leaves one token to draw draws it, whatever the seed.
def without_choice(seed, **params):
    params = types.SamplingParams(max_tokens=8, seed=seed, stop=[], **params)
    return list(base.sample(ask, 1, params).result().sequences[0].tokens)


greedy = without_choice(1, temperature=0.0)
for seed in (2, 3):
    for params in (dict(temperature=0.0), dict(top_k=1), dict(top_p=1e-6)):
        assert without_choice(seed, **params) == greedy, params
# And up to that token's text, which OpenAI's side tells.
body = json.dumps({"model": name, "prompt": [stop], "max_tokens": 0, "echo": True}).encode()
headers = {"content-type": "application/json", "x-api-key": KEY}
with urllib.request.urlopen(urllib.request.Request(URL + "/v1/completions", body, headers)) as answer:
    word = json.load(answer)["choices"][0]["text"]
by_text = base.sample(ask, 1, types.SamplingParams(max_tokens=8, seed=5, stop=[word])).result().sequences[0]
assert (by_text.stop_reason, list(by_text.tokens)) == ("stop", list(cut.tokens)), (word, by_text, cut)
free = base.sample(ask, 4, types.SamplingParams(max_tokens=64, seed=1, stop=[], temperature=2.0)).result()
assert all(len(seq.tokens) == 64 and seq.stop_reason == "length" for seq in free.sequences)
raises(failed, lambda: base.sample(ask, 1, types.SamplingParams(max_tokens=0)).result(), "max_tokens")
raises(failed, lambda: base.sample(ask, 1, types.SamplingParams(max_tokens=4, top_p=2.0)).result(), "top_p")
raises(failed, lambda: base.sample(types.ModelInput.from_ints([10**7]), 1, params).result(), "10000000")
print("samples: seeds, stops, log-probabilities, most probable tokens")

# --- a snapshot stays, the model moves on ----------------------------------------------------------
snapshot = client.save_weights_and_get_sampling_client().result()
before = snapshot.compute_logprobs(types.ModelInput.from_ints(text)).result()[1:]
assert np.abs(np.asarray(before, dtype=np.float32) - whole[0]).max() < 2e-3
client.forward_backward(one, "cross_entropy").result()
client.optim_step(adam(1e-2)).result()
assert snapshot.compute_logprobs(types.ModelInput.from_ints(text)).result()[1:] == before
newer = client.save_weights_and_get_sampling_client().result()
assert newer.compute_logprobs(types.ModelInput.from_ints(text)).result()[1:] != before
assert snapshot.compute_logprobs(types.ModelInput.from_ints(text)).result()[1:] == before
print("a snapshot does not move, nor by a newer one")

# --- checkpoints -----------------------------------------------------------------------------------
state = client.save_state("state").result().path
raises(failed, lambda: client.save_state("state").result(), "already")
client.save_state("state", overwrite=True).result()
weights = client.save_weights_for_sampler("sampler", ttl_seconds=7200).result().path


def step_of(resumed):
    resumed.forward_backward(one, "cross_entropy").result()
    resumed.optim_step(adam(1e-2)).result()
    return logprobs_of(resumed.forward(one, "cross_entropy").result())[0]


goes_on = step_of(client)
with_moments = step_of(service.create_training_client_from_state_with_optimizer(state).result())
without = step_of(service.create_training_client_from_state(state).result())
assert np.abs(goes_on - with_moments).max() < 1e-4, "moments are kept"
assert np.abs(goes_on - without).max() > 1e-4, "and dropped where they are to be"
client.load_state_with_optimizer(state).result()
assert np.abs(step_of(client) - with_moments).max() < 1e-4, "moments are loaded where they are asked for"
client.load_state(state).result()
assert np.abs(step_of(client) - without).max() < 1e-4, "and not where they are not"
client.load_state(state).result()
by_path = service.create_sampling_client(model_path=weights).result()
assert by_path.get_base_model() == name
resumed = by_path.compute_logprobs(types.ModelInput.from_ints(text)).result()[1:]
loaded = logprobs_of(client.forward(one, "cross_entropy").result())[0]
assert np.abs(np.asarray(resumed, dtype=np.float32) - loaded).max() < 2e-3

# A checkpoint that is replaced is sampled from as it is now.
def of_path(path):
    return service.create_sampling_client(model_path=path).result().compute_logprobs(types.ModelInput.from_ints(text)).result()[1:]


moving = service.create_training_client_from_state(state).result()
replaced = moving.save_state("replaced").result().path
older = of_path(replaced)
step_of(moving)
moving.save_state("replaced", overwrite=True).result()
assert of_path(replaced) != older
print("checkpoints: with and without optimizer, for samplers, replaced")

# --- REST ------------------------------------------------------------------------------------------
rest = tinker.RestClient(base_url=URL, api_key=KEY)
run = client.model_id
runs = rest.list_training_runs(limit=100).result()
assert run in [entry.training_run_id for entry in runs.training_runs]
assert rest.get_training_run(run).result().last_checkpoint.tinker_path == state
mine = {entry.tinker_path for entry in rest.list_checkpoints(run).result().checkpoints}
assert mine == {state, weights}, mine
assert mine <= {entry.tinker_path for entry in rest.list_user_checkpoints().result().checkpoints}
about = rest.get_weights_info_by_tinker_path(weights).result()
assert (about.base_model, about.lora_rank) == (name, 8)
rest.set_checkpoint_ttl_from_tinker_path(weights, 3600).result()
rest.delete_checkpoint_from_tinker_path(weights).result()
raises(tinker.NotFoundError, lambda: rest.get_weights_info_by_tinker_path(weights).result(), "no checkpoint")
session = service.holder.get_session_id()
assert session in rest.list_sessions().result().sessions
assert run in rest.get_session(session).result().training_run_ids
external = client.save_weights_external("away").result().path
urls = rest.get_external_weights_urls(external).result().urls
assert set(urls) == {"adapter_config.json", "adapter_model.safetensors"}, urls
# An address is good without a key, and no other is.
config = json.load(urllib.request.urlopen(urls["adapter_config.json"]))
assert config["r"] == 8 and config["peft_type"] == "LORA", config
print("REST: runs, checkpoints, sessions, a PEFT folder's files")

service.close("success").result()
print("OK")
