"""Writes a seed for every distinct answer of the math-verify fixture: python seed.py, then `cargo fuzz cmin math`."""

import hashlib
import json
import pathlib

here = pathlib.Path(__file__).parent
corpus = here / "corpus" / "math"
corpus.mkdir(parents=True, exist_ok=True)
fixture = here.parent / "tests" / "fixtures" / "math_verify" / "verdicts.jsonl"
for line in fixture.read_text(encoding="utf-8").splitlines():
    row = json.loads(line)
    seed = f"{row['reference']}\0{row['response']}".encode()
    (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
