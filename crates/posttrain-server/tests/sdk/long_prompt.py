"""Measures how long the tokens of streams stay away while a long prompt is read, at a running server.

    python long_prompt.py http://127.0.0.1:8000 TOKENS ENGINES

There is a stream for each of the server's ENGINES, of which it has one a thread.
"""

import sys
import threading
import time

import openai

URL, TOKENS, ENGINES = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = openai.OpenAI(base_url=f"{URL}/v1", api_key="tml-anything-at-all", timeout=600, max_retries=0)
model = client.models.list().data[0].id
read = {}


def reads():
    started = time.monotonic()
    # Its numbers differ, so that nothing of it has been kept.
    prompt = [int(started * 1000 + place * 7) % 900 + 100 for place in range(TOKENS)]
    client.completions.create(model=model, prompt=prompt, max_tokens=1)
    read["seconds"] = time.monotonic() - started


def streams(gaps):
    before = time.monotonic()
    asked = client.completions.create(
        model=model, prompt="Once upon a time", max_tokens=2000, stream=True, extra_body={"ignore_eos": True})
    for _ in asked:
        gaps.append((before, time.monotonic() - before))
        before = time.monotonic()
        if "seconds" in read:
            asked.close()
            break


# One for each engine, so that the prompt comes to one that is at work.
streamed = [[] for _ in range(ENGINES)]
threads = [threading.Thread(target=streams, args=(gaps,)) for gaps in streamed]
for thread in threads:
    thread.start()
while min(map(len, streamed)) < 10:
    time.sleep(0.1)
started = time.monotonic()
reads()
for thread in threads:
    thread.join()
print(f"{TOKENS} tokens read in {read['seconds']:.1f} s; between two tokens of a stream at most:")
for gaps in streamed:
    quiet = max(gap for at, gap in gaps[2:] if at + gap < started)
    busy = [gap for at, gap in gaps if at + gap > started]
    print(f"  {max(busy):.2f} s, of {len(busy)} tokens; before {quiet:.2f} s")
