//! Tinker's datums as this workspace's: dense and sparse tensors checked, then laid out.

use super::wire::{self, ChunkKind, DType, Encoding, SparseCsr, Tensor};
use crate::refusal::Refusal;
use posttrain_train::Datum;

/// What a loss reads of a datum beside its targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inputs {
    /// `weights`, 1 everywhere where they are not given.
    Weights,
    /// `logprobs` and `advantages`.
    Policy,
    /// The same, and `sequence_ratio_mask`.
    MaskedPolicy,
}

impl Inputs {
    fn known(self) -> &'static [&'static str] {
        match self {
            Self::Weights => &["target_tokens", "weights"],
            Self::Policy => &["target_tokens", "logprobs", "advantages"],
            Self::MaskedPolicy => {
                &["target_tokens", "logprobs", "advantages", "sequence_ratio_mask"]
            }
        }
    }
}

/// A datum with the shape that its targets came in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShapedDatum {
    pub datum: Datum,
    /// `K` of targets `[N, K]`; `None` of targets `[N]`.
    pub trailing: Option<i64>,
}

/// What datums may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DatumBounds {
    pub context: usize,
    pub vocab: i64,
    /// Entries of all datums of a call together.
    pub entries: usize,
}

/// Reads all datums of a call. `data[i]` is named where it is wrong.
pub(crate) fn read_datums(
    data: &[wire::Datum],
    inputs: Inputs,
    bounds: DatumBounds,
) -> Result<Vec<ShapedDatum>, Refusal> {
    if data.is_empty() {
        return Err(Refusal::field("data", "at least one datum", "none"));
    }

    let mut left = bounds.entries;
    let mut datums = Vec::with_capacity(data.len());
    for (index, datum) in data.iter().enumerate() {
        let read = read_datum(datum, inputs, DatumBounds { entries: left, ..bounds });
        let shaped = read.map_err(|refusal| Refusal {
            detail: format!("data[{index}]: {}", refusal.detail),
            ..refusal
        })?;
        left -= shaped.datum.targets.len();
        datums.push(shaped);
    }
    Ok(datums)
}

fn read_datum(
    datum: &wire::Datum,
    inputs: Inputs,
    bounds: DatumBounds,
) -> Result<ShapedDatum, Refusal> {
    let input = read_tokens(&datum.model_input)?;
    if input.is_empty() || input.len() > bounds.context {
        let expected = format!("from 1 to {} tokens, the model's context", bounds.context);
        return Err(Refusal::field("model_input", &expected, input.len()));
    }
    check_tokens("model_input", &input, bounds.vocab)?;

    let known = inputs.known();
    if let Some(name) = datum.loss_fn_inputs.keys().find(|name| !known.contains(&name.as_str())) {
        let expected = format!("only {} of this loss", known.join(", "));
        return Err(Refusal::field("loss_fn_inputs", &expected, format!("`{name}`")));
    }

    let targets = datum.loss_fn_inputs.get("target_tokens");
    let targets = targets.ok_or_else(|| missing("target_tokens"))?;
    let shape = Shape::of_targets(targets, input.len(), bounds.entries)?;
    let tokens = shape.integers("target_tokens", targets)?;
    check_tokens("target_tokens", &tokens, bounds.vocab)?;

    let floats = |name: &'static str| -> Result<Option<Vec<f32>>, Refusal> {
        let tensor = datum.loss_fn_inputs.get(name);
        tensor.map(|tensor| shape.floats(name, tensor)).transpose()
    };
    let columns = shape.columns.unwrap_or(1);
    let mut read = Datum::with_targets(input, tokens, columns);
    match inputs {
        Inputs::Weights => read.weights = floats("weights")?,
        Inputs::Policy | Inputs::MaskedPolicy => {
            read.sampling_logprobs = Some(floats("logprobs")?.ok_or_else(|| missing("logprobs"))?);
            read.advantages = Some(floats("advantages")?.ok_or_else(|| missing("advantages"))?);
        }
    }
    if inputs == Inputs::MaskedPolicy {
        let mask = floats("sequence_ratio_mask")?.ok_or_else(|| missing("sequence_ratio_mask"))?;
        check_mask(&mask, read.advantages.as_deref().unwrap_or_default())?;
        read.weights = Some(mask);
    }
    Ok(ShapedDatum { datum: read, trailing: shape.columns.map(|columns| columns as i64) })
}

fn missing(name: &str) -> Refusal {
    Refusal::field("loss_fn_inputs", &format!("`{name}`, which this loss needs"), "none")
}

/// A position outside of the mask takes no part in the sequence's ratio, and none in the loss.
fn check_mask(mask: &[f32], advantages: &[f32]) -> Result<(), Refusal> {
    for (index, (masked, advantage)) in mask.iter().zip(advantages).enumerate() {
        let field = format!("sequence_ratio_mask[{index}]");
        if *masked != 0.0 && *masked != 1.0 {
            return Err(Refusal::field(&field, "0 or 1", masked));
        }
        if *masked == 0.0 && *advantage != 0.0 {
            return Err(Refusal::field(&field, "1 where the advantage is not 0", "0"));
        }
    }
    Ok(())
}

/// The token ids of text chunks, one after the other.
fn read_tokens(chunks: &[wire::Chunk]) -> Result<Vec<i64>, Refusal> {
    let mut tokens = Vec::new();
    for chunk in chunks {
        match &chunk.chunk {
            Some(ChunkKind::EncodedText(text)) => {
                tokens.extend(
                    values(&text.tokens, i32::from_le_bytes, "tokens")?.into_iter().map(i64::from),
                );
            }
            Some(ChunkKind::Image(_)) => return Err(no_images("image")),
            Some(ChunkKind::Dmel(_)) => return Err(no_images("audio")),
            None => {
                return Err(Refusal::field(
                    "model_input",
                    "chunks of encoded text",
                    "an empty chunk",
                ));
            }
        }
    }
    Ok(tokens)
}

/// Why a chunk that is not text is refused.
pub(crate) fn no_images(what: &str) -> Refusal {
    Refusal::field("model_input", "chunks of encoded text: this model reads text alone", what)
}

/// Checks token ids against the vocabulary.
pub(crate) fn check_tokens(field: &str, tokens: &[i64], vocab: i64) -> Result<(), Refusal> {
    match tokens.iter().find(|token| !(0..vocab).contains(*token)) {
        Some(token) => {
            Err(Refusal::field(field, &format!("token ids from 0 below {vocab}"), token))
        }
        None => Ok(()),
    }
}

/// The shape of a datum's targets, which all its other tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    rows: usize,
    columns: Option<usize>,
}

impl Shape {
    fn of_targets(targets: &Tensor, rows: usize, most: usize) -> Result<Self, Refusal> {
        let columns = match targets.shape.as_slice() {
            [] | [_] => None,
            [_, columns] => Some(*columns),
            other => {
                return Err(Refusal::field(
                    "target_tokens",
                    "a shape of (N,) or (N, K)",
                    format!("{other:?}"),
                ));
            }
        };
        if let Some(given) = targets.shape.first()
            && usize::try_from(*given) != Ok(rows)
        {
            let expected = format!("{rows} rows, one a token of the model's input");
            return Err(Refusal::field("target_tokens", &expected, given));
        }

        let columns = columns.map(|columns| {
            let count = usize::try_from(columns).ok().filter(|count| *count >= 1);
            count.ok_or_else(|| {
                Refusal::field("target_tokens", "at least 1 target a position", columns)
            })
        });
        let shape = Self { rows, columns: columns.transpose()? };
        match shape.entries() {
            Some(entries) if entries <= most => Ok(shape),
            _ => {
                let expected = format!("at most {most} more entries of one call");
                let got = format!("{rows} positions of {} targets", shape.columns.unwrap_or(1));
                Err(Refusal::field("target_tokens", &expected, got))
            }
        }
    }

    fn entries(&self) -> Option<usize> {
        self.rows.checked_mul(self.columns.unwrap_or(1))
    }

    /// A tensor's integers, dense.
    fn integers(&self, name: &str, tensor: &Tensor) -> Result<Vec<i64>, Refusal> {
        let read = |bytes: &[u8]| match DType::try_from(tensor.dtype) {
            Ok(DType::Int64) => values(bytes, i64::from_le_bytes, name),
            Ok(DType::Int32) => {
                Ok(values(bytes, i32::from_le_bytes, name)?.into_iter().map(i64::from).collect())
            }
            _ => Err(Refusal::field(name, "integers", format!("dtype {}", tensor.dtype))),
        };
        self.dense(name, tensor, read)
    }

    /// A tensor's numbers, dense and finite.
    fn floats(&self, name: &str, tensor: &Tensor) -> Result<Vec<f32>, Refusal> {
        let read = |bytes: &[u8]| match DType::try_from(tensor.dtype) {
            Ok(DType::Float32) => values(bytes, f32::from_le_bytes, name),
            // A list of whole numbers arrives as integers.
            Ok(DType::Int64) => {
                let whole = values(bytes, i64::from_le_bytes, name)?;
                Ok(whole.into_iter().map(|value| value as f32).collect())
            }
            _ => Err(Refusal::field(name, "float32", format!("dtype {}", tensor.dtype))),
        };
        let floats = self.dense(name, tensor, read)?;
        match floats.iter().position(|value| !value.is_finite()) {
            Some(index) => {
                Err(Refusal::field(&format!("{name}[{index}]"), "a finite number", floats[index]))
            }
            None => Ok(floats),
        }
    }

    fn dense<T: Copy + Default + PartialEq>(
        &self,
        name: &str,
        tensor: &Tensor,
        read: impl Fn(&[u8]) -> Result<Vec<T>, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let entries = self.entries().unwrap_or_default();
        let listed = match &tensor.encoding {
            Some(Encoding::SparseCsr(csr)) => {
                self.check_shape(name, tensor)?;
                return self.laid_out(name, csr, &read(&csr.values)?);
            }
            Some(Encoding::Dense(bytes)) => read(bytes)?,
            None => Vec::new(),
        };

        // The SDK's forward pass of a custom loss on sparse targets sends as many zeros as there
        // are listed targets, under the dense shape.
        let zeros = self.columns.is_some() && listed.iter().all(|value| *value == T::default());
        if name == "weights" && listed.len() < entries && zeros {
            self.check_shape(name, tensor)?;
            return Ok(vec![T::default(); entries]);
        }
        if listed.len() != entries {
            let expected = format!("{entries} values");
            return Err(Refusal::field(name, &expected, listed.len()));
        }
        self.check_shape(name, tensor)?;
        Ok(listed)
    }

    fn check_shape(&self, name: &str, tensor: &Tensor) -> Result<(), Refusal> {
        let rows = self.rows as i64;
        let fits = match (tensor.shape.as_slice(), self.columns) {
            ([], None) => true,
            ([given], None) => *given == rows,
            ([given, width], Some(columns)) => *given == rows && *width == columns as i64,
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let expected = match self.columns {
            Some(columns) => format!("the targets' shape ({rows}, {columns})"),
            None => format!("the targets' shape ({rows},)"),
        };
        Err(Refusal::field(name, &expected, format!("{:?}", tensor.shape)))
    }

    /// Compressed rows laid out; what is not listed is 0.
    fn laid_out<T: Copy + Default>(
        &self,
        name: &str,
        csr: &SparseCsr,
        listed: &[T],
    ) -> Result<Vec<T>, Refusal> {
        let rows = values(&csr.crow_indices, i64::from_le_bytes, "crow_indices")?;
        let columns = values(&csr.col_indices, i64::from_le_bytes, "col_indices")?;
        let width = self.columns.unwrap_or(1);
        let field = |part: &str| format!("{name}.{part}");

        let rises = rows.is_sorted() && rows.first() == Some(&0);
        let ends = rows.last().is_some_and(|last| usize::try_from(*last) == Ok(listed.len()));
        if rows.len() != self.rows + 1 || !rises || !ends {
            let expected =
                format!("{} indices that rise from 0 to {}", self.rows + 1, listed.len());
            return Err(Refusal::field(
                &field("crow_indices"),
                &expected,
                format!("{} of them", rows.len()),
            ));
        }
        if columns.len() != listed.len() {
            let expected = format!("{}, one a value", listed.len());
            return Err(Refusal::field(&field("col_indices"), &expected, columns.len()));
        }

        let mut dense = vec![T::default(); self.rows * width];
        for row in 0..self.rows {
            for place in rows[row] as usize..rows[row + 1] as usize {
                let column = usize::try_from(columns[place]).ok().filter(|column| *column < width);
                let Some(column) = column else {
                    let expected = format!("from 0 below {width}");
                    return Err(Refusal::field(&field("col_indices"), &expected, columns[place]));
                };
                dense[row * width + column] = listed[place];
            }
        }
        Ok(dense)
    }
}

/// Little-endian values of `N` bytes each.
fn values<T, const N: usize>(
    bytes: &[u8],
    read: fn([u8; N]) -> T,
    name: &str,
) -> Result<Vec<T>, Refusal> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        let expected = format!("a multiple of {N} bytes");
        return Err(Refusal::field(name, &expected, format!("{} bytes", bytes.len())));
    }
    Ok(chunks.iter().map(|chunk| read(*chunk)).collect())
}
