//! A GGUF file: every weight that it lists can be read or is an error, and so are its tokenizer and
//! its template.
#![no_main]

use libfuzzer_sys::fuzz_target;
use posttrain_model::{Checkpoint, GgufFile};
use std::io::Write;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
    file.write_all(bytes).unwrap();
    match GgufFile::open(file.path()) {
        Ok(gguf) => {
            for name in gguf.weight_names().collect::<Vec<_>>() {
                if let Ok(Some(tensor)) = gguf.read(&name) {
                    // An element takes at least two bits of the file.
                    assert!(tensor.numel() <= 4 * bytes.len(), "{name}: {:?}", tensor.size());
                }
            }
            let checkpoint = Checkpoint::open(file.path()).unwrap();
            let _ = (checkpoint.tokenizer(), checkpoint.chat_template());
        }
        Err(error) => assert!(error.to_string().contains(".gguf"), "{error}"),
    }
});
