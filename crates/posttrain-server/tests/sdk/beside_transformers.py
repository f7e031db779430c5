"""Compares a running server with transformers in f32, and its losses with the same formulas differentiated in the client.

    python beside_transformers.py http://127.0.0.1:8000 MODEL [API_KEY]

MODEL is the served model as transformers loads it: a folder, or a GGUF file. It needs torch, transformers, and gguf for the
latter; the server has to compute in f32.
"""

import math
import os
import sys
import urllib.request

import numpy as np
import safetensors.numpy
import tinker
import torch
from tinker import types
from transformers import AutoModelForCausalLM

URL, MODEL = sys.argv[1], sys.argv[2]
KEY = sys.argv[3] if len(sys.argv) > 3 else "tml-anything-at-all"
# Nats, as the SDK's own checks have it.
CLOSE = 2e-3

if MODEL.endswith(".gguf"):
    folder, file = os.path.split(MODEL)
    reference = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
else:
    reference = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
reference.eval()

service = tinker.ServiceClient(base_url=URL, api_key=KEY)
name = tinker.RestClient(base_url=URL, api_key=KEY).get_server_capabilities().result().supported_models[0].model_name
training = service.create_lora_training_client(name, rank=8, seed=7).result()
tokenizer = training.get_tokenizer()
text = tokenizer.encode("The capital of France is Paris, and that of Italy is Rome. Two plus two is four, they say.")


def datum(tokens, targets, **inputs):
    arrays = {key: np.asarray(values, dtype=np.float32) for key, values in inputs.items()}
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens),
        loss_fn_inputs={"target_tokens": np.asarray(targets, dtype=np.int64), **arrays},
    )


def true_logprobs(tokens, temperature=1.0):
    """Of each token but the first, given those before it."""
    with torch.no_grad():
        logits = reference(torch.tensor([tokens])).logits[0].double() / temperature
    return torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].numpy()


def apart(what, one, other):
    far = float(np.abs(np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)).max())
    print(f"{what}: {far:.1e} nats apart")
    assert far < CLOSE, (what, one, other)


# --- log-probabilities ------------------------------------------------------------------------------
read, targets = text[:-1], text[1:]
n = len(targets)
one = [datum(read, targets, weights=np.ones(n))]
own = training.forward(one, "cross_entropy").result().loss_fn_outputs[0]["logprobs"].to_numpy()
apart("forward", own, true_logprobs(text))
base = service.create_sampling_client(base_model=name).result()
apart("prompt", base.compute_logprobs(types.ModelInput.from_ints(text)).result()[1:], true_logprobs(text))
for temperature in (1.0, 0.5):
    params = types.SamplingParams(max_tokens=24, seed=3, temperature=temperature, stop=[])
    drawn = base.sample(types.ModelInput.from_ints(text[:8]), 2, params).result()
    for sequence in drawn.sequences:
        whole = text[:8] + list(sequence.tokens)
        apart(f"sampled at {temperature}", sequence.logprobs, true_logprobs(whole, temperature)[7:])

# --- every loss, its gradient by the server and by the client's autograd ------------------------------
rng = np.random.default_rng(0)
q = (own + rng.normal(0, 0.5, n)).astype(np.float32)
advantages = rng.normal(0, 1, n).astype(np.float32)
mask = np.ones(n, dtype=np.float32)
mask[:3] = 0.0
masked = np.where(mask > 0, advantages, 0.0).astype(np.float32)
old, gain, kept, own_gain = map(torch.tensor, (q, advantages, mask, masked))


def clipped(values, gain, low, high):
    return torch.minimum(values * gain, values.clamp(low, high) * gain)


def gspo(logprobs):
    """The sequence's ratio at each token, whose gradient is that token's own (Tinker's, and the paper's token form)."""
    whole = ((logprobs.detach() - old) * kept).sum() / kept.sum()
    ratio = (whole + logprobs - logprobs.detach()).exp()
    return -(clipped(ratio, own_gain, 0.8, 1.2) * kept).sum()


rl = dict(logprobs=q, advantages=advantages)
losses = {
    "cross_entropy": (dict(weights=np.ones(n)), lambda p: -p.sum()),
    "importance_sampling": (rl, lambda p: -((p - old).exp() * gain).sum()),
    "ppo": (rl, lambda p: -clipped((p - old).exp(), gain, 0.8, 1.2).sum()),
    "cispo": (rl, lambda p: -((p - old).exp().clamp(0.0, 4.0).detach() * p * gain).sum()),
    "dro": (rl, lambda p: -(p * gain - 0.5 * 0.05 * (p - old) ** 2).sum()),
    "gspo": (dict(logprobs=q, advantages=masked, sequence_ratio_mask=mask), gspo),
}


def stepped(call):
    """The gradient's norm, and log-probabilities behind a step that is smooth in the gradient."""
    client = service.create_lora_training_client(name, rank=8, seed=11).result()
    call(client).result()
    norm = client.optim_step(types.AdamParams(learning_rate=1e-1, eps=1.0)).result().metrics["unclipped_grad_l2:mean"]
    return norm, client.forward(one, "cross_entropy").result().loss_fn_outputs[0]["logprobs"].to_numpy()


for loss, (inputs, formula) in losses.items():
    of_server = stepped(lambda client: client.forward_backward([datum(read, targets, **inputs)], loss))

    def custom(data, logprobs, formula=formula):
        value = formula(logprobs[0])
        return value, {"loss": value.item()}

    of_client = stepped(lambda client: client.forward_backward_custom(one, custom))
    assert math.isclose(of_server[0], of_client[0], rel_tol=1e-4), (loss, of_server[0], of_client[0])
    apart(f"{loss}, gradient's norm {of_server[0]:.3f}, behind a step", of_server[1], of_client[1])

# --- two steps of AdamW in closed form ---------------------------------------------------------------
# Of a gradient g that is the same twice m̂ = g and v̂ = g², so that each step moves by the rate; at this rate it is. What had
# none, the A of a fresh adapter in its first step, moves by the decay alone: that is drive.py's.
client = service.create_lora_training_client(name, rank=8, seed=11).result()
norms = []
for _ in range(2):
    client.forward_backward(one, "cross_entropy").result()
    step = client.optim_step(types.AdamParams(learning_rate=1e-6)).result()
    norms.append(step.metrics["unclipped_grad_l2:mean"])
assert math.isclose(norms[0], norms[1], rel_tol=1e-2), norms
path = client.save_weights_external("two").result().path
urls = tinker.RestClient(base_url=URL, api_key=KEY).get_external_weights_urls(path).result().urls
weights = safetensors.numpy.load(urllib.request.urlopen(urls["adapter_model.safetensors"]).read())
moved = np.abs(np.concatenate([value.ravel() for key, value in weights.items() if "lora_B" in key]))
share = float((np.abs(moved / 2e-6 - 1) < 0.02).mean())
print(f"two steps of AdamW: {share:.3f} of B moved by twice the rate, within 2%")
assert share > 0.95, share
print("OK")
