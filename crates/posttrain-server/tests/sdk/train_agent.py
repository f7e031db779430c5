"""Trains an agent program as it is: it speaks OpenAI's protocol through OpenAI's own client, and what it sampled
trains a model through Tinker's own SDK. The program says two things; a digit in either is what is rewarded.

    python train_agent.py http://127.0.0.1:8000 [API_KEY]
"""

import concurrent.futures
import json
import sys
import urllib.request

import numpy as np
import openai
import tinker
from tinker import types

URL = sys.argv[1]
KEY = sys.argv[2] if len(sys.argv) > 2 else "tml-anything-at-all"
STEPS, GROUPS, EPISODES = 14, 4, 8


def post(path, body):
    request = urllib.request.Request(
        URL + path, json.dumps(body).encode(),
        {"content-type": "application/json", "x-api-key": KEY, "authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


# --- the agent program: it knows of an address and of a model's name, and nothing of training ----
def agent(address, model, task):
    client = openai.OpenAI(base_url=address, api_key=KEY, max_retries=0)
    messages = [{"role": "user", "content": task}]
    said = []
    for question in ("and?", None):
        answer = client.chat.completions.create(model=model, messages=messages, max_tokens=6)
        said.append(answer.choices[0].message.content or "")
        if question:
            messages += [answer.choices[0].message, {"role": "user", "content": question}]
    return said


def reward(said):
    text = "".join(said)
    return sum(character.isdigit() for character in text) / max(len(text), 1)


# --- an episode is opened, the program runs, its reward is posted: what comes back is tokens ------
def episode(model, task):
    opened = post("/episodes", {"role": "agent"})
    said = agent(URL + opened["path"], model, task)
    return post(f"/episodes/{opened['id']}/reward", {"reward": reward(said)})


def datums(trajectory, advantage):
    for index, segment in enumerate(trajectory["segments"]):
        tokens = segment["tokens"]
        logprobs, weights = np.zeros(len(tokens), np.float32), np.zeros(len(tokens), np.float32)
        for turn in trajectory["turns"]:
            place = turn["place"]
            if place["segment"] == index:
                written = slice(place["range"]["start"], place["range"]["end"])
                logprobs[written], weights[written] = turn["logprobs"], 1.0
        yield weights[1:], types.Datum(
            model_input=types.ModelInput.from_ints(tokens[:-1]),
            loss_fn_inputs={
                "target_tokens": np.asarray(tokens[1:], np.int64),
                "logprobs": logprobs[1:],
                "advantages": advantage * weights[1:],
            },
        )


service = tinker.ServiceClient(base_url=URL, api_key=KEY)
name = tinker.RestClient(base_url=URL, api_key=KEY).get_server_capabilities().result().supported_models[0].model_name
training = service.create_lora_training_client(name, rank=8, seed=7).result()
rewards, apart = [], 0.0
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    for step in range(STEPS):
        model = training.save_weights_for_sampler(name=f"agent-{step}").result().path
        tasks = [f"task {step} {group}" for group in range(GROUPS) for _ in range(EPISODES)]
        played = list(pool.map(lambda task: episode(model, task), tasks))
        earned = np.asarray([trajectory["end_reward"] for trajectory in played]).reshape(GROUPS, EPISODES)
        rewards.append(earned.mean())
        spread = earned.std(axis=1, keepdims=True)
        advantages = ((earned - earned.mean(axis=1, keepdims=True)) / (spread + 1e-6)).reshape(-1)

        batch = [pair for trajectory, a in zip(played, advantages) for pair in datums(trajectory, float(a))]
        assert len(batch) == GROUPS * EPISODES, "one context an episode"
        result = training.forward_backward([datum for _, datum in batch], "importance_sampling")
        update = training.optim_step(types.AdamParams(learning_rate=2e-2))
        for (weights, datum), out in zip(batch, result.result().loss_fn_outputs):
            sampled = datum.loss_fn_inputs["logprobs"].to_numpy()
            difference = np.abs(out["logprobs"].to_numpy() - sampled) * weights
            apart = max(apart, float(difference.max()))
        update.result()

print("rewards:", " ".join(f"{value:.2f}" for value in rewards))
print(f"trainer and sampler at most {apart:.1e} nats apart")
# The very tokens that were sampled, in the very contexts.
assert apart < 1e-4, apart
first, last = np.mean(rewards[:3]), np.mean(rewards[-3:])
assert last > first + 0.1, (first, last)
print("OK")
