//! Decoder transformers on libtorch: weights, tokenizer and chat template
