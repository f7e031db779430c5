"""The core of the API as every version of the SDK since 0.25 has it: for checking older ones.

    PYTHONPATH=FOLDER-OF-ANOTHER-VERSION python versions.py http://127.0.0.1:8000
"""

import os
import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")
os.environ.setdefault("TINKER_API_KEY", "tml-anything-at-all")
import tinker  # noqa: E402
from tinker import types  # noqa: E402


def result(value):
    """Older versions return clients, newer ones futures of clients."""
    return value.result() if hasattr(value, "result") else value


def logprobs(passes):
    out = passes.loss_fn_outputs[0]["logprobs"]
    return np.asarray(out.to_numpy() if hasattr(out, "to_numpy") else out.data)


service = tinker.ServiceClient(base_url=sys.argv[1])
name = result(service.get_server_capabilities()).supported_models[0].model_name
training = result(service.create_lora_training_client(name, rank=4, seed=1))
datum = types.Datum(
    model_input=types.ModelInput.from_ints([5, 6, 7]),
    loss_fn_inputs={"target_tokens": types.TensorData(data=[6, 7, 8], dtype="int64", shape=[3]),
                    "weights": types.TensorData(data=[1.0, 1.0, 1.0], dtype="float32", shape=[3])},
)
before = logprobs(result(training.forward([datum], "cross_entropy")))
for _ in range(3):
    passes = training.forward_backward([datum], "cross_entropy")
    step = training.optim_step(types.AdamParams(learning_rate=1e-2))
    result(passes), result(step)
after = logprobs(result(training.forward([datum], "cross_entropy")))
assert after.sum() > before.sum(), (before, after)

sampler = result(training.save_weights_and_get_sampling_client(name="now"))
prompt = types.ModelInput.from_ints([5, 6, 7, 8])
scored = result(sampler.compute_logprobs(prompt))
assert np.abs(np.asarray(scored[1:], dtype=np.float32) - after).max() < 2e-3, (scored, after)
drawn = result(sampler.sample(prompt, 2, types.SamplingParams(max_tokens=4, seed=1)))
assert len(drawn.sequences) == 2

state = result(training.save_state("state")).path
for create in (service.create_training_client_from_state, service.create_training_client_from_state_with_optimizer):
    resumed = result(create(state))
    assert np.abs(logprobs(result(resumed.forward([datum], "cross_entropy"))) - after).max() < 1e-4
path = result(training.save_weights_for_sampler("sampler")).path
result(result(service.create_sampling_client(model_path=path)).sample(prompt, 1, types.SamplingParams(max_tokens=2)))
print(getattr(tinker, "__version__", "?"), "OK")
