//! What a download tells while it runs.

/// Sees a download's progress, from several threads at once.
pub trait DownloadProgress: Sync {
    /// The download begins: so many files that are not in the cache yet, so many bytes.
    fn begin(&self, files: usize, bytes: u64);

    /// So many bytes of `file` have come, or were there from an earlier attempt.
    fn advance(&self, file: &str, bytes: u64);

    /// A file is whole.
    fn finish(&self, file: &str);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl DownloadProgress for NoProgress {
    fn begin(&self, _files: usize, _bytes: u64) {}
    fn advance(&self, _file: &str, _bytes: u64) {}
    fn finish(&self, _file: &str) {}
}
