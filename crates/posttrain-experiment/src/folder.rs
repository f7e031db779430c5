//! The report's two files.

use crate::{ExperimentError, Report};
use posttrain_store::replace_file;
use std::fs;
use std::path::Path;

impl Report {
    /// The report as one page for a person, which needs no network and runs no script. Whatever
    /// models, datasets and configuration say is shown as text; long texts are cut, and only
    /// `report.json` has the whole.
    ///
    /// ```
    /// use posttrain_experiment::{AnswerSample, Report};
    ///
    /// let sample = AnswerSample { response: "</dd><script>alert(1)</script>".into(), ..AnswerSample::default() };
    /// let page = Report { samples: vec![sample], ..Report::default() }.to_html();
    /// assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script"));
    /// ```
    #[must_use]
    pub fn to_html(&self) -> String {
        crate::html::page(self)
    }

    /// Reads `report.json` of a run's folder.
    ///
    /// # Errors
    /// [`ExperimentError::Io`], or [`ExperimentError::Format`] with file, field and line.
    pub fn read(folder: &Path) -> Result<Self, ExperimentError> {
        let path = folder.join("report.json");
        let text = fs::read_to_string(&path).map_err(ExperimentError::io(&path))?;
        Self::parse(&path.display().to_string(), &text)
    }
}

/// Writes `report.json` and `report.html` into a folder, which is made if it is not there. A reader
/// sees the old file or the new one, whole.
///
/// ```
/// use posttrain_experiment::{Report, write_report};
///
/// let folder = std::env::temp_dir().join(format!("posttrain-report-{}", std::process::id()));
/// write_report(&folder, &Report::default())?;
/// assert_eq!(Report::read(&folder)?, Report::default());
/// assert!(std::fs::read_to_string(folder.join("report.html")).is_ok_and(|page| page.starts_with("<!DOCTYPE html>")));
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), posttrain_experiment::ExperimentError>(())
/// ```
///
/// # Errors
/// [`ExperimentError::Store`], or [`ExperimentError::Format`] for a number that is not finite;
/// nothing is written then.
pub fn write_report(folder: &Path, report: &Report) -> Result<(), ExperimentError> {
    let json = report.to_json()? + "\n";
    replace_file(&folder.join("report.json"), json.as_bytes())?;
    Ok(replace_file(&folder.join("report.html"), report.to_html().as_bytes())?)
}
