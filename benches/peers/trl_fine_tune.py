"""TRL's SFTTrainer or DPOTrainer on the texts of `benches/fine_tune.rs`: 16 texts, or 16 pairs, a step, LoRA r = 128 on every
linear layer. Usage: trl_fine_tune.py MODEL sft|dpo [bf16|f32]"""
import json, resource, sys, tempfile, time
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from workload import CHAT, sums

model_dir, lesson, kind = sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "bf16"
tok = PreTrainedTokenizerFast(tokenizer_file=f"{model_dir}/tokenizer.json", eos_token="<|im_end|>", pad_token="<|im_end|>")
steps = 6
ask = [CHAT.format(f"Write down the sums of page {n}.") for n in range(16 * steps)]
if lesson == "sft":
    rows = [{"prompt": p, "completion": sums(n, 24, 0) + "<|im_end|>"} for n, p in enumerate(ask)]
else:
    rows = [{"prompt": p, "chosen": sums(n, 12, 0) + "<|im_end|>", "rejected": sums(n, 12, 1) + "<|im_end|>"} for n, p in enumerate(ask)]


class Clock(TrainerCallback):
    times = []

    def on_step_begin(self, *_, **__):
        self.start = time.time()

    def on_step_end(self, *_, **__):
        self.times.append(time.time() - self.start)


common = dict(
    output_dir=tempfile.mkdtemp(), per_device_train_batch_size=16, max_steps=steps, learning_rate=1e-4, logging_steps=1,
    report_to=[], bf16=kind == "bf16", use_cpu=True, save_strategy="no", gradient_checkpointing=False, max_length=None,
)
dtype = torch.bfloat16 if kind == "bf16" else torch.float32
model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype)
clock = Clock()
args = dict(
    model=model, train_dataset=Dataset.from_list(rows), processing_class=tok, callbacks=[clock],
    peft_config=LoraConfig(r=128, lora_alpha=128, target_modules="all-linear"),
)
trainer = SFTTrainer(args=SFTConfig(**common), **args) if lesson == "sft" else DPOTrainer(args=DPOConfig(beta=0.1, **common), **args)
trainer.train()
times = sorted(clock.times[1:])
print(json.dumps({
    "peer": type(trainer).__name__, "kind": kind, "median_step_seconds": times[len(times) // 2],
    "losses": [h["loss"] for h in trainer.state.log_history if "loss" in h],
    "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
}))
