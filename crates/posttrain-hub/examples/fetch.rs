//! Fetches a model into the cache, with a bar, and prints its folder.
//!
//! ```text
//! cargo run --release -p posttrain-hub --example fetch -- Qwen/Qwen3-0.6B
//! ```

use indicatif::{ProgressBar, ProgressStyle};
use posttrain_hub::{DownloadProgress, HubConfig, HubError, HubModel, fetch};

/// One bar over all files.
struct Bar(ProgressBar);

impl DownloadProgress for Bar {
    fn begin(&self, files: usize, bytes: u64) {
        self.0.set_length(bytes);
        self.0.set_message(format!("{files} files"));
    }

    fn advance(&self, _file: &str, bytes: u64) {
        self.0.inc(bytes);
    }

    fn finish(&self, file: &str) {
        self.0.println(file);
    }
}

fn main() -> Result<(), HubError> {
    let Some(name) = std::env::args().nth(1) else {
        eprintln!("usage: fetch OWNER/NAME[@REVISION]");
        std::process::exit(2);
    };
    let bar = ProgressBar::new(0);
    if let Ok(style) =
        ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
    {
        bar.set_style(style);
    }
    let fetched = fetch(&HubModel::parse(&name)?, &HubConfig::from_env()?, &Bar(bar))?;
    println!("{}", fetched.folder.display());
    Ok(())
}
