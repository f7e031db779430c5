//! The page in a real browser: headless Chromium, from `POSTTRAIN_CHROMIUM` or the path; skipped
//! where there is none.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_experiment::{AnswerSample, Report};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const WIDTHS: [u32; 3] = [360, 820, 1400];

fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("POSTTRAIN_CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("chromium"))
        .find(|program| program.is_file());
    let program = named.or(found);
    if program.is_none() {
        println!(
            "SKIPPED: no browser: `chromium` is not on the path, and POSTTRAIN_CHROMIUM names none"
        );
    }
    program
}

/// Loads a file; standard output is the document as the browser has it, standard error its log.
fn load(chromium: &Path, page: &Path, extra: &[&str]) -> Output {
    let profile = tempfile::tempdir().unwrap();
    let flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
                 --disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=2000 --dump-dom";
    let mut command = Command::new(chromium);
    command.args(flags.split_whitespace()).args(extra);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("file://{}", page.display()));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn console(output: &Output) -> Vec<String> {
    let log = String::from_utf8_lossy(&output.stderr);
    log.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect()
}

/// A page with the report in a frame of a width, and a script that puts into the title what the
/// frame measures and says.
fn framed(page: &str, width: u32) -> String {
    let document = page.replace('&', "&amp;").replace('"', "&quot;");
    format!(
        "<!DOCTYPE html><meta charset=utf-8><title>none</title>\
         <iframe id=f style=\"border:0;width:{width}px;height:900px\" srcdoc=\"{document}\"></iframe><script>\
         const f = document.getElementById('f');\
         f.onload = () => {{ const d = f.contentDocument, e = d.documentElement;\
           d.querySelectorAll('details').forEach(x => x.open = true);\
           const loads = d.querySelectorAll('script, img, iframe, object, embed, audio, video, [src]').length;\
           const wide = [...d.querySelectorAll('text')].filter(t => {{ const r = t.getBoundingClientRect();\
             return r.width > 0 && (r.left < -1 || r.right > e.clientWidth + 1); }}).length;\
           document.title = [e.clientWidth, e.scrollWidth, d.querySelectorAll('section').length, loads, wide].join(' '); }};\
         </script>"
    )
}

fn hostile(mut report: Report) -> Report {
    let text = "</script><img src=x onerror=\"console.error(1)\">]]>\u{202e}".to_owned()
        + &"W".repeat(100_000);
    let sample = AnswerSample {
        model: text.clone(),
        question: text.clone(),
        response: text.clone(),
        ..AnswerSample::default()
    };
    report.samples.push(sample);
    let model = report.models["math"].clone();
    report.models.insert(text, model);
    report
}

#[test]
fn the_page_loads_without_an_error_and_is_no_wider_than_its_window() {
    let Some(chromium) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let report = Report::from_json(include_str!("fixtures/report/report.json")).unwrap();
    let path = folder.path().join("page.html");
    for (report, sections) in [(Report::default(), 2), (hostile(report.clone()), 11), (report, 11)]
    {
        let page = report.to_html();
        std::fs::write(&path, &page).unwrap();
        let plain = load(&chromium, &path, &["--window-size=820,900"]);
        assert_eq!(console(&plain), Vec::<String>::new());
        assert!(
            String::from_utf8_lossy(&plain.stdout).contains("What follows, and what does not"),
            "no page came"
        );
        for width in WIDTHS {
            std::fs::write(&path, framed(&page, width)).unwrap();
            let output = load(&chromium, &path, &["--window-size=1600,1000"]);
            assert_eq!(console(&output), Vec::<String>::new(), "at {width}");
            let dom = String::from_utf8_lossy(&output.stdout);
            let title = dom.split("<title>").nth(1).unwrap().split("</title>").next().unwrap();
            let measured: Vec<u32> =
                title.split(' ').map(|n| n.parse().unwrap_or_else(|_| panic!("{title}"))).collect();
            // A bar for scrolling down takes some of the width.
            assert!(
                measured[0] > width - 30 && measured[0] <= width,
                "the frame is {} wide",
                measured[0]
            );
            assert_eq!(measured[1], measured[0], "at {width} the page is {} wide", measured[1]);
            assert_eq!(
                measured[2..],
                [sections, 0, 0],
                "sections, elements that load, texts cut off, at {width}"
            );
        }
    }
}

#[test]
fn the_browser_would_have_said_so() {
    let Some(chromium) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    let broken = "<!DOCTYPE html><title>t</title><p style=\"width:2000px\">wide<script>nothing.there()</script>";
    std::fs::write(&path, broken).unwrap();
    assert_eq!(
        console(&load(&chromium, &path, &[])).len(),
        1,
        "an error of a script was not logged"
    );
    std::fs::write(
        &path,
        framed("<!DOCTYPE html><p style=\"width:2000px\">wide<img src=\"x\">", 360),
    )
    .unwrap();
    let output = load(&chromium, &path, &[]);
    let dom = String::from_utf8_lossy(&output.stdout);
    assert!(
        dom.contains(" 0 1 0</title>") && !dom.contains("360 360"),
        "{}",
        dom.split("<iframe").next().unwrap()
    );
}
