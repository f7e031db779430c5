//! Where a model's weights come from: safetensors, GGUF, or a seed.

#[cfg(feature = "gguf")]
use crate::gguf::GgufFile;
use crate::{ModelError, Quantize};
use posttrain_tensor::TensorFile;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// The weights of a checkpoint, taken one by one by their names in the Hugging Face layout.
///
/// Files are memory-mapped; a weight is copied when it is taken, straight to the kind and device
/// asked for. What has not been taken at the end is an error, and so is what is not there or has
/// another shape.
pub struct Weights {
    path: PathBuf,
    source: Source,
    left: BTreeSet<String>,
    kind: Kind,
    device: Device,
    quantize: Quantize,
    /// Bytes that a device reads from directly, once one has been needed.
    pinned: Option<Tensor>,
}

enum Source {
    Safetensors {
        files: Vec<TensorFile>,
        place: HashMap<String, usize>,
    },
    #[cfg(feature = "gguf")]
    Gguf(GgufFile),
    Random {
        seed: u64,
    },
}

impl Weights {
    /// The weights of a folder: `model.safetensors`, or the shards that
    /// `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`], [`ModelError::Pickle`] where there is only a pickle,
    /// [`ModelError::Format`] for an index that does not fit its shards.
    pub fn from_folder(folder: &Path, kind: Kind, device: Device) -> Result<Self, ModelError> {
        let files =
            shards(folder)?.iter().map(|p| TensorFile::open(p)).collect::<Result<Vec<_>, _>>()?;

        let mut place = HashMap::new();
        for (index, file) in files.iter().enumerate() {
            for name in file.names() {
                if place.insert(name.clone(), index).is_some() {
                    let reason = format!("weight `{name}` stands in two shards");
                    return Err(ModelError::Format { path: folder.into(), reason });
                }
            }
        }

        let left = place.keys().filter(|name| !is_buffer(name)).cloned().collect();
        Ok(Self {
            path: folder.into(),
            source: Source::Safetensors { files, place },
            left,
            kind,
            device,
            quantize: Quantize::None,
            pinned: None,
        })
    }

    /// The weights of a GGUF file, dequantized.
    ///
    /// # Errors
    /// [`ModelError::Format`] for a file that is not a GGUF, or is cut short.
    #[cfg(feature = "gguf")]
    #[must_use]
    pub fn from_gguf(file: GgufFile, kind: Kind, device: Device) -> Self {
        let left = file.weight_names().collect();
        let (path, quantize) = (file.path().into(), Quantize::None);
        Self { path, source: Source::Gguf(file), left, kind, device, quantize, pinned: None }
    }

    /// Weights drawn from a seed: normal with deviation 0.02, norms one. A weight's values depend
    /// on its name and the seed alone.
    #[must_use]
    pub fn random(seed: u64, kind: Kind, device: Device) -> Self {
        Self {
            path: PathBuf::from("(random weights)"),
            source: Source::Random { seed },
            left: BTreeSet::new(),
            kind,
            device,
            quantize: Quantize::None,
            pinned: None,
        }
    }

    /// The same, with the frozen linear layers in fewer bits once they are taken.
    #[must_use]
    pub fn quantized(self, quantize: Quantize) -> Self {
        Self { quantize, ..self }
    }

    pub(crate) fn quantize(&self) -> Quantize {
        self.quantize
    }

    /// Takes the weight of that name, which must have that shape.
    ///
    /// # Errors
    /// [`ModelError::MissingWeight`], [`ModelError::WeightShape`] or [`ModelError::WeightKind`]
    /// names it.
    pub fn take(&mut self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        if self.device != Device::Cpu {
            let mut place = Tensor::f_empty(shape, (self.kind, self.device))?;
            if self.staged(name, &mut place)? {
                return Ok(place);
            }
        }

        let tensor = self.read(name, shape)?;
        if tensor.size() != shape {
            return Err(ModelError::WeightShape {
                path: self.path.clone(),
                name: name.into(),
                expected: shape.into(),
                got: tensor.size(),
            });
        }

        if !is_weight(tensor.kind()) {
            return Err(ModelError::WeightKind {
                path: self.path.clone(),
                name: name.into(),
                got: tensor.kind(),
            });
        }

        self.left.remove(name);
        Ok(tensor.f_to_kind(self.kind)?.f_to_device(self.device)?.f_contiguous()?)
    }

    /// Takes weights of `columns` columns as one, row behind row; each file's straight into its
    /// place, so that no weight is in memory twice.
    ///
    /// # Errors
    /// Those of [`Weights::take`].
    pub(crate) fn take_rows(
        &mut self,
        parts: &[(String, i64)],
        columns: i64,
    ) -> Result<Tensor, ModelError> {
        if let [(name, rows)] = parts {
            return self.take(name, &[*rows, columns]);
        }

        let rows = parts.iter().map(|(_, rows)| rows).sum();
        let mut joined = Tensor::f_empty([rows, columns], (self.kind, self.device))?;
        let mut start = 0;

        for (name, rows) in parts {
            let shape = [*rows, columns];
            let place = |joined: &Tensor| joined.f_narrow(0, start, *rows);
            if let Some(file) = self.as_stored(name, &shape) {
                file.read_into(name, &mut joined, (start * columns) as usize)?;
                self.left.remove(name);
            } else if self.device == Device::Cpu || !self.staged(name, &mut place(&joined)?)? {
                place(&joined)?.f_copy_(&self.take(name, &shape)?)?;
            }
            start += rows;
        }
        Ok(joined)
    }

    /// Copies a weight of a safetensors file to `place` on a device by way of pinned memory, which
    /// the device reads at the bus's rate and which all weights share. False, and nothing done, for
    /// a weight that is not there in that shape.
    fn staged(&mut self, name: &str, place: &mut Tensor) -> Result<bool, ModelError> {
        let Source::Safetensors { files, place: index } = &self.source else { return Ok(false) };
        let Some(file) = index.get(name).map(|&index| &files[index]) else { return Ok(false) };
        if file.shape(name).is_none_or(|shape| shape != place.size()) {
            return Ok(false);
        }

        let kind = file.kind(name)?;
        if !is_weight(kind) {
            return Ok(false);
        }

        let bytes = (place.numel() * kind.elt_size_in_bytes()) as i64;
        let mut buffer = match self.pinned.take().filter(|buffer| buffer.size()[0] >= bytes) {
            Some(buffer) => buffer,
            None => Tensor::f_empty([bytes], (Kind::Uint8, Device::Cpu))?
                .f_internal_pin_memory(self.device)?,
        };

        file.read_into(name, &mut buffer, 0)?;
        let staged =
            buffer.f_narrow(0, 0, bytes)?.f_view_dtype(kind)?.f_view(place.size().as_slice())?;
        place.f_copy_(&staged)?;

        self.pinned = Some(buffer);
        self.left.remove(name);
        Ok(true)
    }

    /// The file that holds a weight in that shape just as it is to be, if there is one.
    fn as_stored(&self, name: &str, shape: &[i64]) -> Option<&TensorFile> {
        let Source::Safetensors { files, place } = &self.source else { return None };
        let file = &files[*place.get(name)?];
        let fits = file.shape(name)? == shape && file.kind(name).ok()? == self.kind;
        (fits && self.device == Device::Cpu).then_some(file)
    }

    /// Whether a weight of that name is there and has not been taken.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.left.contains(name)
    }

    /// Ends the loading.
    ///
    /// # Errors
    /// [`ModelError::ExtraWeights`] if any weight was not taken.
    pub fn finish(self) -> Result<(), ModelError> {
        match self.left.first() {
            Some(first) => Err(ModelError::ExtraWeights {
                path: self.path,
                count: self.left.len(),
                first: first.clone(),
            }),
            None => Ok(()),
        }
    }

    fn read(&self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        let missing = || ModelError::MissingWeight {
            path: self.path.clone(),
            name: name.into(),
            expected: shape.into(),
        };

        match &self.source {
            Source::Safetensors { files, place } => {
                let file = place.get(name).map(|&index| &files[index]).ok_or_else(missing)?;
                Ok(file.read(name)?)
            }
            #[cfg(feature = "gguf")]
            Source::Gguf(file) => file.read(name)?.ok_or_else(missing),
            Source::Random { seed } => random_weight(name, shape, *seed),
        }
    }
}

/// Whether numbers of a kind can be weights.
fn is_weight(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half | Kind::Double)
}

/// Rotary frequencies that old checkpoints store; they follow from the configuration.
fn is_buffer(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
}

pub(crate) fn shards(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }

    let index = folder.join("model.safetensors.index.json");
    if index.is_file() {
        return shards_of_index(folder, &index);
    }

    let pickle = ["pytorch_model.bin", "pytorch_model.bin.index.json"].map(|n| folder.join(n));
    match pickle.into_iter().find(|p| p.exists()) {
        Some(path) => Err(ModelError::Pickle { path }),
        None => Err(ModelError::MissingFile { path: folder.into(), expected: "model.safetensors" }),
    }
}

fn shards_of_index(folder: &Path, index: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let text = std::fs::read_to_string(index)
        .map_err(|source| ModelError::Io { path: index.into(), source })?;
    let format = |reason: String| ModelError::Format { path: index.into(), reason };
    let json: Value = serde_json::from_str(&text).map_err(|e| format(e.to_string()))?;
    let map = json
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| format("no table `weight_map`".into()))?;

    let mut names = BTreeSet::new();
    for (weight, file) in map {
        let file = file.as_str().filter(|f| Path::new(f).file_name().is_some_and(|n| n == *f));
        names.insert(
            file.ok_or_else(|| format(format!("weight `{weight}` names no file of this folder")))?,
        );
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn random_weight(name: &str, shape: &[i64], seed: u64) -> Result<Tensor, ModelError> {
    if name.contains("norm") {
        return Ok(Tensor::f_ones(shape, (Kind::Float, Device::Cpu))?);
    }

    let count: i64 = shape.iter().product();
    let mut state = name.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |s, b| mix(s ^ u64::from(b)));
    let mut unit = || {
        state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
        (state >> 40) as f32 / (1u64 << 24) as f32
    };

    // The sum of four uniforms is near enough to a normal; its deviation is √(4/12).
    let values: Vec<f32> = (0..count)
        .map(|_| ((0..4).map(|_| unit()).sum::<f32>() - 2.0) * 0.02 * 3f32.sqrt())
        .collect();
    Ok(Tensor::f_from_slice(&values)?.f_view(shape)?)
}

/// The finalizer of SplitMix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use posttrain_tensor::write_tensors;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let tensors: Vec<_> =
            names.iter().map(|n| (n.to_string(), Tensor::from_slice(&[1f32, 2.0]))).collect();
        write_tensors(&dir.path().join("model.safetensors"), &tensors).unwrap();
        dir
    }

    fn open(dir: &tempfile::TempDir) -> Weights {
        Weights::from_folder(dir.path(), Kind::Float, Device::Cpu).unwrap()
    }

    #[test]
    fn missing_misshapen_and_extra_weights_are_named() {
        let dir = folder(&["a", "b"]);
        let mut weights = open(&dir);
        let message = |e: ModelError| e.to_string();
        assert!(message(weights.take("c", &[2]).unwrap_err()).contains("`c` is missing"));
        assert!(
            message(weights.take("a", &[1, 2]).unwrap_err())
                .contains("expected shape [1, 2], got [2]")
        );
        let _ = weights.take("a", &[2]).unwrap();
        assert!(message(weights.finish().unwrap_err()).contains("`b`"));
    }

    #[test]
    fn a_pickle_is_refused_and_an_index_stays_in_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pytorch_model.bin"), "x").unwrap();
        let error = |dir: &tempfile::TempDir| {
            Weights::from_folder(dir.path(), Kind::Float, Device::Cpu).err().unwrap()
        };
        assert!(matches!(error(&dir), ModelError::Pickle { .. }));
        let index = r#"{"weight_map": {"a": "../../secret.safetensors"}}"#;
        std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        assert!(error(&dir).to_string().contains("names no file of this folder"));
    }

    #[test]
    fn random_weights_have_the_deviation_that_they_claim() {
        let w = random_weight("w", &[100, 100], 1).unwrap();
        assert!((w.std(true).double_value(&[]) - 0.02).abs() < 1e-3);
        assert!(w.mean(Kind::Float).double_value(&[]).abs() < 1e-3);
    }
}
