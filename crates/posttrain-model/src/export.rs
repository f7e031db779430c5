//! A model with an adapter folded in, as a folder that needs neither this crate nor PEFT.

use crate::checkpoint::Origin;
use crate::{Checkpoint, Decoder, ModelConfig, ModelError};
use posttrain_lora::Adapter;
use posttrain_tensor::write_tensors;
use serde_json::{Value, json};
use std::path::Path;
use tch::Tensor;

const WEIGHTS: &str = "model.safetensors";

impl Decoder {
    /// Every weight by its name in the Hugging Face layout, `adapter` folded in: `W + s·B·A`, added
    /// in f32, then rounded to the base's kind. In bf16 the rounding loses small updates: this is
    /// for serving elsewhere, not for going on.
    ///
    /// # Errors
    /// [`ModelError::Argument`] for a quantized base, which has no place for an update;
    /// [`ModelError::Torch`] when memory fails.
    pub fn merged_weights(
        &self,
        adapter: Option<&Adapter>,
    ) -> Result<Vec<(String, Tensor)>, ModelError> {
        let _guard = tch::no_grad_guard();
        let mut weights = vec![("model.embed_tokens.weight".to_owned(), self.embedding.handle())];
        for block in &self.blocks {
            block.collect_weights(self.modules(), adapter, &mut weights)?;
        }
        weights.push(("model.norm.weight".to_owned(), self.norm.handle()));

        if let Some(head) = self.head_layer() {
            for part in head.merged_parts(adapter)? {
                weights.push((format!("{}.weight", self.modules()[part.module].path), part.weight));
            }
        }
        Ok(weights)
    }
}

impl Checkpoint {
    /// Writes `decoder`, which was read from this checkpoint, with `adapter` folded in as a folder
    /// in the Hugging Face layout, for transformers, vLLM and whoever reads those: weights,
    /// configuration, tokenizer and chat template. What the folder holds is written over.
    ///
    /// # Errors
    /// Those of [`Decoder::merged_weights`]; [`ModelError::Io`] or [`ModelError::Tensor`] names
    /// what cannot be written.
    pub fn export_merged(
        &self,
        decoder: &Decoder,
        adapter: &Adapter,
        dir: &Path,
    ) -> Result<(), ModelError> {
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        let mut weights = Vec::new();
        for (name, weight) in decoder.merged_weights(Some(adapter))? {
            weights.push((name, weight.f_contiguous()?));
        }
        write_tensors(&dir.join(WEIGHTS), &weights)?;
        self.export_beside_weights(dir)
    }

    /// Writes everything but the weights as a folder in the Hugging Face layout: configuration,
    /// tokenizer and chat template, which is what a client needs who turns texts into tokens. What
    /// the folder holds is written over.
    ///
    /// # Errors
    /// [`ModelError::Io`] names what cannot be written.
    pub fn export_beside_weights(&self, dir: &Path) -> Result<(), ModelError> {
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        match self.origin() {
            Origin::Folder => copy_beside_weights(self.path(), dir),
            Origin::Single => self.describe(dir),
        }
    }

    /// Writes what a single file says of its model as the files that the Hugging Face layout has
    /// for it.
    fn describe(&self, dir: &Path) -> Result<(), ModelError> {
        let template = self.chat_template_source()?;
        let tokenizer_config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": template.source,
            "bos_token": template.begin,
            "eos_token": template.end,
        });

        write(&dir.join("config.json"), &self.config().llama_json().to_string())?;
        write(&dir.join("tokenizer_config.json"), &tokenizer_config.to_string())?;
        write(&dir.join("tokenizer.json"), &self.tokenizer()?.to_json()?)
    }
}

/// Copies every file of a model's folder but its weights and their index.
fn copy_beside_weights(from: &Path, to: &Path) -> Result<(), ModelError> {
    for entry in std::fs::read_dir(from).map_err(io(from))? {
        let path = entry.map_err(io(from))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let describes =
            [".json", ".jinja", ".txt", ".model"].iter().any(|ending| name.ends_with(ending));
        if path.is_file() && describes && !name.ends_with(".index.json") {
            std::fs::copy(&path, to.join(name)).map_err(io(&path))?;
        }
    }
    Ok(())
}

impl ModelConfig {
    /// The `config.json` of a Llama without stretched positions: what a single file can describe, and
    /// [`ModelConfig::tiny`].
    ///
    /// ```
    /// let config = posttrain_model::ModelConfig::tiny().llama_json();
    /// assert_eq!((&config["model_type"], &config["vocab_size"]), (&"llama".into(), &64.into()));
    /// ```
    #[must_use]
    pub fn llama_json(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "max_position_embeddings": self.max_position_embeddings,
            "tie_word_embeddings": self.tie_word_embeddings,
            "eos_token_id": self.eos_token_ids,
        })
    }
}

fn write(path: &Path, text: &str) -> Result<(), ModelError> {
    std::fs::write(path, text).map_err(io(path))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ModelError {
    let path = path.to_path_buf();
    move |source| ModelError::Io { path, source }
}
