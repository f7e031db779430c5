//! A classifier's file: safetensors with metadata.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2};
use posttrain_store::replace_file;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::logistic::Logistic;
use crate::standardizer::Standardizer;
use crate::{Classifier, Embedder, RouterError, labels};

/// What the metadata's `format` says.
const FORMAT: &str = "posttrain-router classifier 1";
/// A file that is larger is not read: a thousand labels of 100,000 features have 0.8 GB.
const LARGEST: u64 = 1 << 30;

impl<E: Embedder> Classifier<E> {
    /// Writes the classifier, whole or not at all: `weights [L, D]`, `bias [L]`, `mean [D]`,
    /// `scale [D]` and `temperature [1]` in f64, with the labels and the embedder's name, dimension
    /// and settings as metadata. The embedder itself is not kept.
    ///
    /// # Errors
    /// [`RouterError::Store`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), RouterError> {
        let path = path.as_ref();
        let (labels, dimension) = self.model.weights.dim();
        let tensors = [
            ("weights", vec![labels, dimension], bytes(&self.model.weights)),
            ("bias", vec![labels], bytes(&self.model.bias)),
            ("mean", vec![dimension], bytes(&self.standardizer.mean)),
            ("scale", vec![dimension], bytes(&self.standardizer.scale)),
            ("temperature", vec![1], bytes(&[self.temperature])),
        ];

        let broken = |source| RouterError::NotSafetensors { path: path.to_owned(), source };
        let views = tensors.iter().map(view_of).collect::<Result<Vec<_>, _>>().map_err(broken)?;
        let whole = safetensors::serialize(views, Some(self.metadata())).map_err(broken)?;
        Ok(replace_file(path, &whole)?)
    }

    /// Reads a classifier that was fitted on the vectors of this embedder.
    ///
    /// # Errors
    /// [`RouterError::Io`]; [`RouterError::NotSafetensors`]; [`RouterError::BadFile`] where it is
    /// no classifier, or one of another embedder.
    pub fn load(path: impl AsRef<Path>, embedder: E) -> Result<Self, RouterError> {
        let path = path.as_ref();
        let whole = read(path)?;
        let file = ClassifierFile::new(path, &whole)?;
        let labels = file.labels()?;
        file.check_embedder(&embedder)?;

        let count = labels.len();
        let dimension = embedder.dimension();
        let weights = file.tensor("weights", &[count, dimension])?;
        let weights = Array2::from_shape_fn((count, dimension), |(label, at)| {
            weights[label * dimension + at]
        });
        let bias = Array1::from_vec(file.tensor("bias", &[count])?);
        let mean = Array1::from_vec(file.tensor("mean", &[dimension])?);
        let scale = Array1::from_vec(file.tensor("scale", &[dimension])?);
        let temperature = file.tensor("temperature", &[1])?[0];

        if temperature <= 0.0 {
            return Err(file.bad("temperature", temperature.to_string(), "more than 0"));
        }

        Ok(Self {
            labels,
            embedder,
            standardizer: Standardizer { mean, scale },
            model: Logistic { weights, bias },
            temperature,
            trials: Vec::new(),
        })
    }

    fn metadata(&self) -> HashMap<String, String> {
        let labels = serde_json::Value::from(self.labels.clone()).to_string();
        let entries = [
            ("format", FORMAT.to_owned()),
            ("labels", labels),
            ("embedder", self.embedder.name().to_owned()),
            ("embedder_dimension", self.embedder.dimension().to_string()),
            ("embedder_settings", self.embedder.settings()),
        ];
        entries.map(|(key, value)| (key.to_owned(), value)).into()
    }
}

/// A file that was read, not yet believed.
struct ClassifierFile<'a> {
    path: PathBuf,
    tensors: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

impl<'a> ClassifierFile<'a> {
    fn new(path: &Path, whole: &'a [u8]) -> Result<Self, RouterError> {
        let broken = |source| RouterError::NotSafetensors { path: path.to_owned(), source };
        let (_, header) = SafeTensors::read_metadata(whole).map_err(broken)?;
        let tensors = SafeTensors::deserialize(whole).map_err(broken)?;
        let metadata = header.metadata().clone().unwrap_or_default();

        let file = Self { path: path.to_owned(), tensors, metadata };
        file.expect("format", FORMAT)?;
        Ok(file)
    }

    fn expect(&self, key: &'static str, expected: &str) -> Result<(), RouterError> {
        match self.metadata.get(key) {
            Some(value) if value == expected => Ok(()),
            Some(value) => Err(self.bad(key, format!("{value:?}"), format!("{expected:?}"))),
            None => Err(self.bad(key, "missing", format!("{expected:?}"))),
        }
    }

    fn check_embedder(&self, embedder: &impl Embedder) -> Result<(), RouterError> {
        self.expect("embedder", embedder.name())?;
        self.expect("embedder_dimension", &embedder.dimension().to_string())?;
        self.expect("embedder_settings", &embedder.settings())
    }

    fn labels(&self) -> Result<Vec<String>, RouterError> {
        let text = self.metadata.get("labels").map_or("", String::as_str);
        let labels = serde_json::from_str::<Vec<String>>(text)
            .ok()
            .and_then(|labels| labels::checked(labels).ok());
        labels.ok_or_else(|| {
            self.bad("labels", format!("{text:?}"), "a JSON list of different texts")
        })
    }

    /// The values of a tensor of this shape, all finite.
    fn tensor(&self, name: &'static str, shape: &[usize]) -> Result<Vec<f64>, RouterError> {
        let view = self
            .tensors
            .tensor(name)
            .map_err(|_| self.bad(name, "missing", format!("F64 {shape:?}")))?;
        if view.dtype() != Dtype::F64 || view.shape() != shape {
            let got = format!("{:?} {:?}", view.dtype(), view.shape());
            return Err(self.bad(name, got, format!("F64 {shape:?}")));
        }

        let (values, _) = view.data().as_chunks::<8>();
        let values: Vec<f64> = values.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(self.bad(name, value.to_string(), "finite numbers")),
            None => Ok(values),
        }
    }

    fn bad(
        &self,
        field: &'static str,
        got: impl Into<String>,
        expected: impl Into<String>,
    ) -> RouterError {
        RouterError::BadFile {
            path: self.path.clone(),
            field,
            got: got.into(),
            expected: expected.into(),
        }
    }
}

type Stored = (&'static str, Vec<usize>, Vec<u8>);

fn view_of(
    (name, shape, bytes): &Stored,
) -> Result<(&'static str, TensorView<'_>), safetensors::SafeTensorError> {
    Ok((*name, TensorView::new(Dtype::F64, shape.clone(), bytes)?))
}

fn bytes<'a>(values: impl IntoIterator<Item = &'a f64>) -> Vec<u8> {
    values.into_iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, RouterError> {
    let failed = |source| RouterError::Io { action: "read", path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > LARGEST {
        return Err(RouterError::BadFile {
            path: path.to_owned(),
            field: "length",
            got: format!("{length} bytes"),
            expected: format!("at most {LARGEST}"),
        });
    }
    fs::read(path).map_err(failed)
}
