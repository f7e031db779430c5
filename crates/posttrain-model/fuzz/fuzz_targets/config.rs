//! A `config.json`: a shape within bounds whose size can be told, or an error that names the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use posttrain_model::{ModelConfig, ModelSize, Quantize};
use std::io::Write;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::with_suffix("config.json").unwrap();
    file.write_all(bytes).unwrap();
    match ModelConfig::from_json_file(file.path()) {
        Ok(config) => {
            assert!(config.hidden_size > 0 && config.num_hidden_layers > 0 && config.vocab_size > 0);
            assert!(config.parameter_count() > 0 && config.active_parameter_count() <= config.parameter_count());
            for quantize in [Quantize::None, Quantize::Int8, Quantize::Nf4] {
                assert!(ModelSize::of(&config, quantize, tch::Kind::BFloat16).memory_bytes > 0);
            }
        }
        Err(error) => assert!(error.to_string().contains("config.json"), "{error}"),
    }
});

