//! Safetensors files to libtorch's tensors and back.

use crate::TensorError;
use crate::shim::is_unshared;
use posttrain_store::replace_file;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// The metadata that transformers and PEFT expect on a file written for torch.
const FORMAT: (&str, &str) = ("format", "pt");

/// A memory-mapped safetensors file, its header read and checked, its tensors read one by one.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: memmap2::Mmap,
    header: Metadata,
    data_start: usize,
}

impl TensorFile {
    /// Maps a file and checks its header against its length.
    ///
    /// # Errors
    /// [`TensorError::Read`] or [`TensorError::Safetensors`] names the file.
    pub fn open(path: &Path) -> Result<Self, TensorError> {
        let map = map_file(path)?;
        let header_error = |source| TensorError::Safetensors { path: path.into(), source };
        // `deserialize` also checks that the data is as long as the header says.
        SafeTensors::deserialize(&map).map_err(header_error)?;
        let (length, header) = SafeTensors::read_metadata(&map).map_err(header_error)?;
        Ok(Self { path: path.into(), map, header, data_start: length + 8 })
    }

    /// The tensors' names, in the order of their data.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// A tensor's shape, or `None` if there is none of that name.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.header.info(name).map(|info| info.shape.iter().map(|&d| d as i64).collect())
    }

    /// The kind that a tensor is stored in.
    ///
    /// # Errors
    /// [`TensorError::MissingTensor`], or [`TensorError::StoredTensor`] for a kind that libtorch
    /// does not have.
    pub fn kind(&self, name: &str) -> Result<Kind, TensorError> {
        let dtype = self.info(name)?.dtype;
        kind_of(dtype).ok_or_else(|| kind_error(&self.path, name, format!("{dtype:?}")))
    }

    /// Copies a tensor out, in the kind that it is stored in, to the CPU.
    ///
    /// # Errors
    /// Those of [`TensorFile::kind`].
    pub fn read(&self, name: &str) -> Result<Tensor, TensorError> {
        let shape: Vec<i64> = self.info(name)?.shape.iter().map(|&d| d as i64).collect();
        let mut tensor = Tensor::f_empty(&shape, (self.kind(name)?, tch::Device::Cpu))?;
        self.read_into(name, &mut tensor, 0)?;
        Ok(tensor)
    }

    /// Copies a tensor's bytes into another one from its element `at` on, such as some rows of a
    /// larger one, without a copy in between. `to` is on the CPU, contiguous, of the stored kind or
    /// of bytes, long enough, and alone with its memory.
    ///
    /// # Errors
    /// Those of [`TensorFile::kind`], [`TensorError::StoredTensor`] where `to` is anything else, and
    /// [`TensorError::Shared`].
    pub fn read_into(&self, name: &str, to: &mut Tensor, at: usize) -> Result<(), TensorError> {
        let info = self.info(name)?;
        let kind = self.kind(name)?;
        let range = self.data_start + info.data_offsets.0..self.data_start + info.data_offsets.1;
        let start = at.saturating_mul(to.kind().elt_size_in_bytes());
        let room = (to.numel() * to.kind().elt_size_in_bytes()).saturating_sub(start);
        if room < range.len()
            || !(to.kind() == kind || to.kind() == Kind::Uint8)
            || to.device() != tch::Device::Cpu
            || !to.is_contiguous()
        {
            return Err(TensorError::StoredTensor {
                path: self.path.clone(),
                name: name.into(),
                expected: format!("room for {} bytes of {kind:?} on the CPU", range.len()),
                got: format!("{:?} of shape {:?} on {:?}", to.kind(), to.size(), to.device()),
            });
        }
        if !is_unshared(to)? {
            return Err(TensorError::Shared { argument: "to" });
        }
        self.copy(range, to, start);
        Ok(())
    }

    fn info(&self, name: &str) -> Result<&safetensors::tensor::TensorInfo, TensorError> {
        let missing = || TensorError::MissingTensor { path: self.path.clone(), name: name.into() };
        self.header.info(name).ok_or_else(missing)
    }

    /// Copies a range of the file into a tensor from its byte `at` on, piece by piece: what has been
    /// copied is given back, so that a tensor is never in memory twice. The tensor is
    /// `read_into`'s, which has checked it.
    #[allow(unsafe_code, reason = "`tch` gives a tensor's memory as a pointer alone")]
    fn copy(&self, range: Range<usize>, tensor: &Tensor, at: usize) {
        let to = tensor.data_ptr().cast::<u8>();
        for start in range.clone().step_by(PIECE) {
            let piece = start..(start + PIECE).min(range.end);
            fetch(&self.map, piece.start, piece.len());
            let from = &self.map[piece.clone()];
            // SAFETY: the tensor is contiguous, on the CPU, the only handle on its memory, and has
            // room for the range behind `at`, which `read_into` has checked; it does not lie in the
            // file, which is mapped for reading alone.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    from.as_ptr(),
                    to.add(at + start - range.start),
                    from.len(),
                )
            };
            release(&self.map, piece.start, piece.len());
        }
    }
}

/// Bytes that are copied at a time.
const PIECE: usize = 8 << 20;

/// Asks for a range in one go: page by page it comes at a fraction of the disk's speed. A system
/// that does not know the request reads page by page.
fn fetch(map: &memmap2::Mmap, start: usize, length: usize) {
    #[cfg(target_os = "linux")]
    if map.advise_range(memmap2::Advice::PopulateRead, start, length).is_ok() {
        return;
    }
    #[cfg(unix)]
    let _ = map.advise_range(memmap2::Advice::WillNeed, start, length);
    let _ = (map, start, length);
}

/// Gives the pages of a range back: a tensor that has been copied out would else be in memory
/// twice.
#[cfg(unix)]
#[allow(
    unsafe_code,
    reason = "`memmap2` cannot know that what is given back is read again from the file"
)]
fn release(map: &memmap2::Mmap, start: usize, length: usize) {
    // SAFETY: the map is a read-only view of a file; pages that are dropped are read again where
    // they are needed.
    let _ =
        unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, length) };
}

#[cfg(not(unix))]
fn release(_map: &memmap2::Mmap, _start: usize, _length: usize) {}

/// Reads every tensor of a safetensors file, in the kind that it is stored in, on the CPU.
///
/// # Errors
/// Those of [`TensorFile::open`] and [`TensorFile::read`].
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, TensorError> {
    let file = TensorFile::open(path)?;
    file.names().into_iter().map(|name| Ok((name.clone(), file.read(&name)?))).collect()
}

/// Writes tensors to a safetensors file, whole or not at all.
///
/// # Errors
/// [`TensorError::Store`] names the file; [`TensorError::StoredTensor`] a tensor of a kind that the
/// format does not have.
///
/// ```
/// use posttrain_tensor::{read_tensors, write_tensors};
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("weights.safetensors");
/// write_tensors(&path, &[("bias".into(), tch::Tensor::from_slice(&[1f32, 2.0]))])?;
/// assert_eq!(read_tensors(&path)?["bias"].double_value(&[1]), 2.0);
/// # Ok::<(), posttrain_tensor::TensorError>(())
/// ```
pub fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), TensorError> {
    let mut stored = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        stored.push((name.as_str(), Stored::of(path, name, tensor)?));
    }
    let metadata = HashMap::from([(FORMAT.0.to_owned(), FORMAT.1.to_owned())]);
    let mut views = Vec::with_capacity(stored.len());
    for (name, stored) in &stored {
        let view = TensorView::new(stored.dtype, stored.shape.clone(), &stored.bytes);
        views.push((
            *name,
            view.map_err(|source| TensorError::Safetensors { path: path.into(), source })?,
        ));
    }
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|source| TensorError::Safetensors { path: path.into(), source })?;
    Ok(replace_file(path, &bytes)?)
}

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn of(path: &Path, name: &str, tensor: &Tensor) -> Result<Self, TensorError> {
        let dtype = dtype_of(tensor.f_kind()?)
            .ok_or_else(|| kind_error(path, name, format!("{:?}", tensor.kind())))?;
        let tensor = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
        let mut bytes = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        Ok(Self { dtype, shape: tensor.size().iter().map(|&d| d as usize).collect(), bytes })
    }
}

#[allow(unsafe_code, reason = "a file that is mapped may be changed by others meanwhile")]
fn map_file(path: &Path) -> Result<memmap2::Mmap, TensorError> {
    let unreadable = |source| TensorError::Read { path: path.into(), source };
    let file = File::open(path).map_err(unreadable)?;
    // SAFETY: the map is read only and copied from before it is dropped. Another process that
    // truncates the file meanwhile would be a fault; files are replaced by renaming, which leaves
    // the mapped one as it is.
    unsafe { memmap2::Mmap::map(&file) }.map_err(unreadable)
}

fn kind_error(path: &Path, name: &str, got: String) -> TensorError {
    let expected = "one of f64, f32, f16, bf16, i64, i32, i16, i8, u8, bool".into();
    TensorError::StoredTensor { path: path.into(), name: name.into(), expected, got }
}

const KINDS: [(Dtype, Kind); 10] = [
    (Dtype::F64, Kind::Double),
    (Dtype::F32, Kind::Float),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::I64, Kind::Int64),
    (Dtype::I32, Kind::Int),
    (Dtype::I16, Kind::Int16),
    (Dtype::I8, Kind::Int8),
    (Dtype::U8, Kind::Uint8),
    (Dtype::BOOL, Kind::Bool),
];

fn kind_of(dtype: Dtype) -> Option<Kind> {
    KINDS.iter().find(|(d, _)| *d == dtype).map(|&(_, kind)| kind)
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    KINDS.iter().find(|(_, k)| *k == kind).map(|&(dtype, _)| dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_in_kind_and_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let values = Tensor::from_slice(&[1.5f32, -2.0, 3.25, 0.0]).view([2, 2]);
        let written: Vec<_> = [Kind::Float, Kind::BFloat16, Kind::Double, Kind::Int64]
            .iter()
            .map(|&kind| (format!("{kind:?}"), values.to_kind(kind)))
            .chain([("empty".to_owned(), Tensor::zeros([0, 3], (Kind::Float, tch::Device::Cpu)))])
            .collect();
        write_tensors(&path, &written).unwrap();
        let read = read_tensors(&path).unwrap();
        assert_eq!(read.len(), written.len());
        for (name, tensor) in &written {
            assert_eq!((&read[name], read[name].kind()), (tensor, tensor.kind()));
        }
    }

    #[test]
    fn a_truncated_file_and_a_missing_one_are_errors_that_name_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        assert!(read_tensors(&path).unwrap_err().to_string().contains("t.safetensors"));
        write_tensors(&path, &[("x".into(), Tensor::from_slice(&[1.0f32; 64]))]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 8]).unwrap();
        assert!(
            read_tensors(&path).unwrap_err().to_string().contains("not a readable safetensors")
        );
    }
}
