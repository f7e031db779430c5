//! A model on the disk that has a size and no sense.

use anyhow::Result;
use posttrain::model::ModelConfig;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

const HIDDEN: u64 = 4096;
const FEED_FORWARD: u64 = 12_288;
const VOCABULARY: u64 = 32_000;

/// A Llama in bf16 in a folder of its own, which goes with it.
pub struct HollowModel {
    folder: PathBuf,
    /// Bytes of its safetensors file.
    pub bytes: u64,
}

impl HollowModel {
    /// Writes a model of about so many bytes, its weights a repeated pattern.
    ///
    /// # Errors
    /// The file that cannot be written.
    pub fn write(bytes: u64) -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/hollow_model");
        std::fs::create_dir_all(&folder)?;
        let layer = 2 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * FEED_FORWARD);
        let layers = (bytes.saturating_sub(2 * VOCABULARY * HIDDEN) / layer).max(1);
        let config = json!({
            "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": FEED_FORWARD,
            "num_hidden_layers": layers, "num_attention_heads": 32, "tie_word_embeddings": true,
        });
        std::fs::write(folder.join("config.json"), config.to_string())?;
        let config = ModelConfig::from_json_file(&folder.join("config.json"))?;
        let (header, data) = header(&config);
        let mut file =
            BufWriter::with_capacity(1 << 20, File::create(folder.join("model.safetensors"))?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        let pattern: Vec<u8> =
            (0..1 << 20).map(|i: u32| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8 & 0x3f).collect();
        for start in (0..data).step_by(pattern.len()) {
            file.write_all(&pattern[..pattern.len().min((data - start) as usize)])?;
        }
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        Ok(Self { folder, bytes: 8 + header.len() as u64 + data })
    }

    /// Where it lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its weights.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.join("model.safetensors")
    }
}

impl Drop for HollowModel {
    fn drop(&mut self) {
        // A folder that stays is in the build's own, and is written over the next time.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The header of all weights, and the bytes of their data.
fn header(config: &ModelConfig) -> (String, u64) {
    let named = |name: &str, shape: Vec<i64>| (format!("{name}.weight"), shape);
    let hidden = config.hidden_size;
    let mut shapes = vec![
        named("model.embed_tokens", vec![config.vocab_size, hidden]),
        named("model.norm", vec![hidden]),
    ];
    shapes.extend(
        config.modules().iter().map(|m| named(&m.path, vec![m.out_features, m.in_features])),
    );
    for layer in 0..config.num_hidden_layers {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            shapes.push(named(&format!("model.layers.{layer}.{norm}"), vec![hidden]));
        }
    }
    let (mut header, mut end) = (Map::<String, Value>::new(), 0);
    for (name, shape) in shapes {
        let start = end;
        end += 2 * shape.iter().product::<i64>() as u64;
        header.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}));
    }
    (Value::Object(header).to_string(), end)
}
