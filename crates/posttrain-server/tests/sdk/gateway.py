"""An agent program: OpenAI's own client, several turns with a tool, episodes beside each other.

    python gateway.py http://127.0.0.1:8000 [API_KEY]
"""

import concurrent.futures
import json
import sys
import urllib.request

import openai

URL = sys.argv[1]
KEY = sys.argv[2] if len(sys.argv) > 2 else "any"
EPISODES = int(sys.argv[3]) if len(sys.argv) > 3 else 8
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}}}]


def post(path, body):
    request = urllib.request.Request(
        URL + path, json.dumps(body).encode(), {"content-type": "application/json", "x-api-key": KEY, "authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def episode(number):
    opened = post("/episodes", {"role": "agent"})
    client = openai.OpenAI(base_url=URL + opened["path"], api_key=KEY, max_retries=0)
    model = client.models.list().data[0].id
    messages = [{"role": "user", "content": f"what is {number} + 1?"}]
    for turn in range(4):
        stream = turn == 2
        answer = client.chat.completions.create(
            model=model, messages=messages, tools=TOOLS, max_tokens=8, seed=number * 10 + turn, stream=stream)
        if stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
            messages.append({"role": "assistant", "content": text})
        else:
            messages.append(answer.choices[0].message)
        messages.append({"role": "tool", "content": str(number + 1), "tool_call_id": f"c{turn}"})
    trajectory = post(f"/episodes/{opened['id']}/reward", {"reward": 1.0})
    assert len(trajectory["segments"]) == 1, trajectory
    assert len(trajectory["turns"]) == 4 and trajectory["end_reward"] == 1.0
    tokens = trajectory["segments"][0]["tokens"]
    for turn in trajectory["turns"]:
        place = turn["place"]["range"]
        assert place["end"] - place["start"] == len(turn["logprobs"]) and place["end"] <= len(tokens)
    return sum(len(turn["logprobs"]) for turn in trajectory["turns"])


with concurrent.futures.ThreadPoolExecutor(16) as pool:
    sampled = list(pool.map(episode, range(EPISODES)))
assert len(sampled) == EPISODES and all(sampled)
print(f"{EPISODES} episodes, {sum(sampled)} tokens sampled, one context each")
print("OK")
