//! A safetensors file: every tensor that its header lists can be read, within the file's bounds, or
//! is an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use posttrain_tensor::TensorFile;
use std::io::Write;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::with_suffix(".safetensors").unwrap();
    file.write_all(bytes).unwrap();
    match TensorFile::open(file.path()) {
        Ok(tensors) => {
            for name in tensors.names() {
                let shape = tensors.shape(&name).unwrap();
                if let Ok(tensor) = tensors.read(&name) {
                    assert_eq!(tensor.size(), shape);
                    assert!(tensor.numel() * tensor.kind().elt_size_in_bytes() <= bytes.len(), "{name}: {shape:?}");
                }
            }
        }
        Err(error) => assert!(error.to_string().contains(".safetensors"), "{error}"),
    }
});
