//! A model as it lies on the disk: a folder in the Hugging Face layout, or a GGUF file.

#[cfg(feature = "gguf")]
use crate::gguf::GgufFile;
use crate::weights::Weights;
use crate::weights::shards;
use crate::{ChatTemplate, Decoder, ModelConfig, ModelError, ModelSize, Quantize, TextTokenizer};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tch::{Device, Kind};

/// A checkpoint whose configuration has been read; weights are read when they are asked for.
pub struct Checkpoint {
    path: PathBuf,
    config: ModelConfig,
    format: Format,
}

enum Format {
    Folder,
    #[cfg(feature = "gguf")]
    Gguf,
}

/// How a checkpoint lies on the disk.
pub(crate) enum Origin {
    /// As a folder in the Hugging Face layout.
    Folder,
    /// As one file that holds everything.
    #[cfg_attr(not(feature = "gguf"), allow(dead_code, reason = "only a GGUF is such a file"))]
    Single,
}

/// A chat template as it is written, and the tokens that it knows.
pub(crate) struct TemplateSource {
    pub source: Option<String>,
    pub begin: Option<String>,
    pub end: Option<String>,
}

impl Checkpoint {
    /// Opens a folder (`config.json`, `model.safetensors` or its shards, `tokenizer.json`,
    /// `tokenizer_config.json`) or a `.gguf` file, and reads its configuration.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::MissingFile`] or [`ModelError::Config`] says what is wrong
    /// where.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let metadata = std::fs::metadata(path)
            .map_err(|source| ModelError::Io { path: path.into(), source })?;

        if metadata.is_dir() {
            let file = path.join("config.json");
            if !file.is_file() {
                return Err(ModelError::MissingFile { path: path.into(), expected: "config.json" });
            }
            let mut config = ModelConfig::from_json_file(&file)?;
            extend_with_generation_config(&mut config, &path.join("generation_config.json"))?;
            return Ok(Self { path: path.into(), config, format: Format::Folder });
        }

        Self::open_file(path)
    }

    #[cfg(feature = "gguf")]
    fn open_file(path: &Path) -> Result<Self, ModelError> {
        refuse_pickle(path)?;
        let config = GgufFile::open(path)?.config()?;
        Ok(Self { path: path.into(), config, format: Format::Gguf })
    }

    #[cfg(not(feature = "gguf"))]
    fn open_file(path: &Path) -> Result<Self, ModelError> {
        refuse_pickle(path)?;
        let reason = "a single file is read as a GGUF, and the feature `gguf` is off".into();
        Err(ModelError::Format { path: path.into(), reason })
    }

    /// The model's shape.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn origin(&self) -> Origin {
        match self.format {
            Format::Folder => Origin::Folder,
            #[cfg(feature = "gguf")]
            Format::Gguf => Origin::Single,
        }
    }

    /// Reads the weights into a decoder that computes in `kind` on `device`.
    ///
    /// # Errors
    /// A weight that is missing, left over or of another shape is named.
    pub fn decoder(&self, kind: Kind, device: Device) -> Result<Decoder, ModelError> {
        self.decoder_quantized(Quantize::None, kind, device)
    }

    /// The same with the frozen linear layers in fewer bits. What it will take is told first, to
    /// the log.
    ///
    /// # Errors
    /// Those of [`Checkpoint::decoder`].
    pub fn decoder_quantized(
        &self,
        quantize: Quantize,
        kind: Kind,
        device: Device,
    ) -> Result<Decoder, ModelError> {
        let size = self.size(quantize, kind)?;
        tracing::info!("{}: {size}", self.path.display());

        let weights = match self.format {
            Format::Folder => Weights::from_folder(&self.path, kind, device)?,
            #[cfg(feature = "gguf")]
            Format::Gguf => Weights::from_gguf(GgufFile::open(&self.path)?, kind, device),
        };

        Decoder::load(&self.config, weights.quantized(quantize))
    }

    /// How large the model is, without reading its weights.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`] or [`ModelError::Io`] if the weights are not there.
    pub fn size(&self, quantize: Quantize, kind: Kind) -> Result<ModelSize, ModelError> {
        let files = match self.format {
            Format::Folder => shards(&self.path)?,
            #[cfg(feature = "gguf")]
            Format::Gguf => vec![self.path.clone()],
        };

        ModelSize::of(&self.config, quantize, kind).with_files(&files)
    }

    /// Reads the tokenizer.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`], [`ModelError::Format`] or [`ModelError::VocabularyMismatch`].
    pub fn tokenizer(&self) -> Result<TextTokenizer, ModelError> {
        match self.format {
            Format::Folder => {
                let file = self.path.join("tokenizer.json");
                if !file.is_file() {
                    return Err(ModelError::MissingFile {
                        path: self.path.clone(),
                        expected: "tokenizer.json",
                    });
                }
                TextTokenizer::from_file(&file, self.config.vocab_size)
            }
            #[cfg(feature = "gguf")]
            Format::Gguf => GgufFile::open(&self.path)?.tokenizer(self.config.vocab_size),
        }
    }

    /// Reads the chat template.
    ///
    /// # Errors
    /// [`ModelError::NoTemplate`] if there is none; [`ModelError::Template`] if it is broken.
    pub fn chat_template(&self) -> Result<ChatTemplate, ModelError> {
        let TemplateSource { source, begin, end } = self.chat_template_source()?;
        let source = source.ok_or_else(|| ModelError::NoTemplate { path: self.path.clone() })?;
        Ok(ChatTemplate::new(&source)?.with_tokens(begin, end))
    }

    pub(crate) fn chat_template_source(&self) -> Result<TemplateSource, ModelError> {
        match self.format {
            Format::Folder => Ok(TemplateSource {
                source: folder_template(&self.path)?,
                begin: folder_token(&self.path, "bos_token")?,
                end: folder_token(&self.path, "eos_token")?,
            }),
            #[cfg(feature = "gguf")]
            Format::Gguf => {
                let file = GgufFile::open(&self.path)?;
                let token = |name: &str| file.special_token(name).map(str::to_owned);
                Ok(TemplateSource {
                    source: file.chat_template().map(str::to_owned),
                    begin: token("bos"),
                    end: token("eos"),
                })
            }
        }
    }
}

fn refuse_pickle(path: &Path) -> Result<(), ModelError> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("bin" | "pt" | "pth" | "pkl" | "ckpt") => {
            Err(ModelError::Pickle { path: path.into() })
        }
        _ => Ok(()),
    }
}

/// Instruction-tuned checkpoints often end their turns with a token that only
/// `generation_config.json` lists.
fn extend_with_generation_config(config: &mut ModelConfig, path: &Path) -> Result<(), ModelError> {
    if !path.is_file() {
        return Ok(());
    }

    let ids = match read_json(path)?.get("eos_token_id") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_i64).collect(),
        Some(value) => value.as_i64().into_iter().collect(),
        None => Vec::new(),
    };

    for id in ids {
        if !config.eos_token_ids.contains(&id) {
            config.eos_token_ids.push(id);
        }
    }
    Ok(())
}

/// `chat_template.jinja` (transformers 4.56 and later), else the field of `tokenizer_config.json`;
/// of several named templates the one called `default`.
fn folder_template(folder: &Path) -> Result<Option<String>, ModelError> {
    let file = folder.join("chat_template.jinja");
    if file.is_file() {
        return std::fs::read_to_string(&file)
            .map(Some)
            .map_err(|source| ModelError::Io { path: file, source });
    }

    let file = folder.join("tokenizer_config.json");
    if !file.is_file() {
        return Ok(None);
    }

    let json = read_json(&file)?;
    Ok(match json.get("chat_template") {
        Some(Value::String(template)) => Some(template.clone()),
        Some(Value::Array(list)) => list
            .iter()
            .find(|t| t.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|t| t.get("template").and_then(Value::as_str))
            .map(str::to_owned),
        _ => None,
    })
}

/// A special token of `tokenizer_config.json`, written as a text or as an object with a `content`.
fn folder_token(folder: &Path, name: &str) -> Result<Option<String>, ModelError> {
    let file = folder.join("tokenizer_config.json");
    if !file.is_file() {
        return Ok(None);
    }

    let json = read_json(&file)?;
    let token = json.get(name).map(|t| t.get("content").unwrap_or(t));
    Ok(token.and_then(Value::as_str).map(str::to_owned))
}

fn read_json(path: &Path) -> Result<Value, ModelError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ModelError::Io { path: path.into(), source })?;
    serde_json::from_str(&text)
        .map_err(|e| ModelError::Format { path: path.into(), reason: e.to_string() })
}
