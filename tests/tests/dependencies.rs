//! What the workspace depends on: under which licenses, and with which known vulnerabilities.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use semver::{Version, VersionReq};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{skipped, workspace};

/// Licenses that ask for no more than to be named, or, of the packages as they are, for their
/// source to stay open (MPL).
const LICENSES: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_package_has_a_license_that_we_may_use_it_under() {
    let packages = packages();
    assert!(packages.len() > 100, "the test sees nothing");
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        let license = package["license"].as_str().unwrap_or_default();
        assert!(is_allowed(license), "{name}: license `{license}`");
    }
}

#[test]
fn no_package_has_a_known_vulnerability() {
    let Some(advisories) = advisories() else {
        return skipped(
            "no advisories: clone github.com/rustsec/advisory-db to ~/.cargo/advisory-db (as cargo-audit does)",
        );
    };

    let mut found = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let version: Version = package["version"].as_str().unwrap().parse().unwrap();
        let of_package =
            std::fs::read_dir(advisories.join("crates").join(name)).into_iter().flatten().flatten();
        let texts = of_package.map(|entry| std::fs::read_to_string(entry.path()).unwrap());
        let open =
            texts.map(|text| Advisory::read(&text)).filter(|advisory| advisory.concerns(&version));
        found.extend(open.map(|advisory| format!("{name} {version}: {}", advisory.id)));
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The packages that this platform's builds and tests are made of. The others are not on the disk.
fn packages() -> Vec<Value> {
    let cargo = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO")).current_dir(workspace()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let metadata =
        cargo(&["metadata", "--offline", "--format-version", "1", "--filter-platform", host]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();

    // Only what is resolved for this platform: the list of packages has all.
    let resolved = metadata["resolve"]["nodes"].as_array().unwrap();
    let is_resolved = |package: &&Value| resolved.iter().any(|node| node["id"] == package["id"]);
    metadata["packages"].as_array().unwrap().iter().filter(is_resolved).cloned().collect()
}

/// A copy of RustSec's advisories where `cargo audit` keeps one, or where `ADVISORY_DB` says.
fn advisories() -> Option<PathBuf> {
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home =
        cargo_home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    let folder = std::env::var_os("ADVISORY_DB")
        .map(PathBuf::from)
        .or_else(|| Some(cargo_home?.join("advisory-db")));
    folder.filter(|folder| folder.join("crates").is_dir())
}

/// Whether an SPDX expression (or the older form with `/`) leaves a way that is allowed.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest) == Some(true) && rest.is_empty()
}

fn any_of(words: &mut &[&str]) -> Option<bool> {
    let mut allowed = all_of(words)?;
    while took(words, "OR") {
        allowed |= all_of(words)?;
    }
    Some(allowed)
}

fn all_of(words: &mut &[&str]) -> Option<bool> {
    let mut allowed = one(words)?;
    while took(words, "AND") {
        allowed &= one(words)?;
    }
    Some(allowed)
}

/// A license, with its exception if it has one, or an expression in parentheses.
fn one(words: &mut &[&str]) -> Option<bool> {
    if took(words, "(") {
        let allowed = any_of(words)?;
        return took(words, ")").then_some(allowed);
    }
    let (first, rest) = words.split_first()?;
    *words = rest;

    let mut license = (*first).to_owned();
    if took(words, "WITH") {
        let (exception, rest) = words.split_first()?;
        *words = rest;
        license = format!("{license} WITH {exception}");
    }
    Some(LICENSES.contains(&license.as_str()))
}

fn took(words: &mut &[&str], expected: &str) -> bool {
    let rest = words.split_first().filter(|(first, _)| **first == expected).map(|(_, rest)| rest);
    *words = rest.unwrap_or(words);
    rest.is_some()
}

/// What an advisory's file says: TOML between fences, then prose.
struct Advisory {
    id: String,
    /// Neither withdrawn nor a mere notice, such as that nobody maintains the package.
    is_vulnerability: bool,
    free: Vec<VersionReq>,
}

impl Advisory {
    fn read(text: &str) -> Self {
        let (_, rest) = text.split_once("```toml").unwrap();
        let (fields, _) = rest.split_once("```").unwrap();
        let fields: toml::Value = toml::from_str(fields).unwrap();
        let advisory = &fields["advisory"];
        let ranges = |kind: &str| {
            let listed = fields.get("versions").and_then(|versions| versions.get(kind)?.as_array());
            listed
                .into_iter()
                .flatten()
                .map(|range| range.as_str().unwrap().parse().unwrap())
                .collect::<Vec<_>>()
        };
        Self {
            id: advisory["id"].as_str().unwrap().to_owned(),
            is_vulnerability: advisory.get("withdrawn").is_none()
                && advisory.get("informational").is_none(),
            free: [ranges("patched"), ranges("unaffected")].concat(),
        }
    }

    fn concerns(&self, version: &Version) -> bool {
        self.is_vulnerability && !self.free.iter().any(|range| range.matches(version))
    }
}

#[test]
fn expressions_are_read_as_spdx_has_them() {
    for allowed in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR GPL-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT",
        "MIT OR",
        "MIT WITH LLVM-exception",
        "(GPL-2.0 OR MIT) AND SSPL-1.0",
    ] {
        assert!(!is_allowed(refused), "{refused}");
    }
}

#[test]
fn an_advisory_concerns_what_is_neither_patched_nor_older_than_the_fault() {
    let text = |head: &str| {
        format!(
            "```toml\n[advisory]\nid = \"RUSTSEC-2020-0071\"\n{head}\n[versions]\npatched = [\">= 0.2.23\"]\n\
             unaffected = [\"=0.2.0\"]\n```\n\n# Prose"
        )
    };
    let concerns =
        |head: &str, version: &str| Advisory::read(&text(head)).concerns(&version.parse().unwrap());
    assert!(concerns("", "0.2.7"));
    assert!(!concerns("", "0.2.23") && !concerns("", "0.2.0"));
    assert!(
        !concerns("informational = \"unmaintained\"", "0.2.7")
            && !concerns("withdrawn = \"2021-01-01\"", "0.2.7")
    );
}
