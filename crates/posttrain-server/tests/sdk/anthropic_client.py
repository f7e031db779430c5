"""Drives the Anthropic side with Anthropic's own client, and an episode through it.

    python anthropic_client.py http://127.0.0.1:8000 [API_KEY]
"""

import json
import sys
import urllib.request

import anthropic

URL = sys.argv[1]
KEY = sys.argv[2] if len(sys.argv) > 2 else "any"
TOOLS = [{"name": "add", "description": "Adds.", "input_schema": {
    "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}}]


def post(path, body):
    request = urllib.request.Request(
        URL + path, json.dumps(body).encode(), {"content-type": "application/json", "x-api-key": KEY})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def connected(path=""):
    return anthropic.Anthropic(base_url=URL + path, api_key=KEY, max_retries=0)


client = connected()
with urllib.request.urlopen(urllib.request.Request(URL + "/v1/models", headers={"x-api-key": KEY})) as answer:
    model = json.load(answer)["data"][0]["id"]
asked = dict(model=model, max_tokens=8, messages=[{"role": "user", "content": "hello"}])

whole = client.messages.create(**asked, system="be brief")
assert whole.role == "assistant" and whole.stop_reason in ("end_turn", "max_tokens"), whole
assert whole.usage.input_tokens > 10 and 1 <= whole.usage.output_tokens <= 8
assert whole.stop_reason != "max_tokens" or whole.usage.output_tokens == 8
# This version of the client has no argument for what it passes on.
greedy = dict(extra_body={"temperature": 0.0})
said = client.messages.create(**asked, **greedy)


def same(one, other):
    """The same but for their ids, and what the client adds that reads a stream."""
    told = [{**message.to_dict(), "id": None, "stop_details": None} for message in (one, other)]
    assert told[0] == told[1], told


with client.messages.stream(**asked, **greedy) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
assert text == "".join(block.text for block in said.content) and len(text) >= 3, said
same(final, said)
stops = dict(stop_sequences=["never", text[:3]])
stopped = client.messages.create(**asked, **greedy, **stops)
assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == text[:3], stopped
assert stopped.content == [] and stopped.usage.output_tokens == 3, stopped
with client.messages.stream(**asked, **greedy, **stops) as stream:
    same(stream.get_final_message(), stopped)
print("messages, whole and streamed, and what stops them")

longer = client.messages.create(**asked, tools=TOOLS)
assert longer.usage.input_tokens > client.messages.create(**asked).usage.input_tokens
for broken, words in [
    (dict(model="another"), "another"),
    (dict(extra_body={"temperature": -1}), "temperature"),
    (dict(tools=TOOLS, tool_choice={"type": "any"}), "tool_choice"),
    (dict(messages=[]), "messages"),
    (dict(thinking={"type": "enabled", "budget_tokens": 1024}), "thinking"),
    (dict(extra_body={"unknown_field": 1}), "unknown_field"),
    (dict(messages=[{"role": "user", "content": [{"type": "image", "source": {
        "type": "url", "url": "http://127.0.0.1/x.png"}}]}]), "image"),
]:
    try:
        client.messages.create(**{**asked, **broken})
    except anthropic.APIStatusError as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"{broken}: nothing was refused")
print("errors in words")

# The client's own loop over tools: it asks for a thread first, and is told that there is none.
@anthropic.beta_tool
def add(a: int, b: int) -> str:
    """Adds."""
    return str(a + b)


ran = client.beta.messages.tool_runner(**asked, tools=[add]).until_done()
assert ran.stop_reason in ("end_turn", "max_tokens"), ran
print("its runner of tools")

# An agent program: several turns with a tool's results, whole and streamed, in one context.
opened = post("/episodes", {"role": "agent"})
agent = connected(opened["path"].removesuffix("/v1"))
messages = [{"role": "user", "content": "what is 2 + 2?"}]
for turn in range(4):
    talk = dict(model=model, max_tokens=8, messages=messages, tools=TOOLS, system="be brief")
    if turn == 2:
        with agent.messages.stream(**talk) as stream:
            answer = stream.get_final_message()
    else:
        answer = agent.messages.create(**talk)
    messages.append({"role": "assistant", "content": answer.content})
    messages.append({"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": f"c{turn}", "content": [{"type": "text", "text": "4"}]},
        {"type": "text", "text": "well?"}]})
trajectory = post(f"/episodes/{opened['id']}/reward", {"reward": 1.0})
assert len(trajectory["segments"]) == 1 and len(trajectory["turns"]) == 4, trajectory
print("an episode in one context")
print("OK")
