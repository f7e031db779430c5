//! Compiles the shim against the headers of the libtorch that `torch-sys` links to, which it finds
//! in the same places.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// One file a subject.
const SOURCES: [&str; 2] = ["shim/backend.cpp", "shim/memory.cpp"];
/// Those that are Linux's alone: how it loads libraries, and process groups.
const LINUX_SOURCES: [&str; 2] = ["shim/library.cpp", "shim/group.cpp"];
/// A folder is looked through for what has changed.
const HEADERS: [&str; 3] = ["shim/guard.hpp", "shim/shim.h", "shim/gloo"];

/// As `torch-sys` asks Python.
const PRINT_PYTORCH: &str = "
import torch
from torch.utils import cpp_extension
print('CXX11:', int(torch._C._GLIBCXX_USE_CXX11_ABI))
for path in cpp_extension.include_paths():
  print('INCLUDE:', path)
";

/// Where libtorch's headers are, and the ABI that its strings have.
struct Libtorch {
    includes: Vec<PathBuf>,
    cxx11_abi: String,
}

fn main() -> ExitCode {
    for file in SOURCES.iter().chain(&LINUX_SOURCES).chain(&HEADERS) {
        println!("cargo::rerun-if-changed={file}");
    }
    // Documentation is built without libtorch there, and links nothing.
    if env::var_os("DOCS_RS").is_some() {
        return ExitCode::SUCCESS;
    }

    match find_libtorch().and_then(|libtorch| compile(&libtorch)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            reason.lines().for_each(|line| println!("cargo::error={line}"));
            ExitCode::FAILURE
        }
    }
}

/// The places of `torch-sys` 0.26, in its order: Python's PyTorch, `LIBTORCH_INCLUDE`, `LIBTORCH`,
/// `/usr`, and what it has downloaded itself.
fn find_libtorch() -> Result<Libtorch, String> {
    let libtorch =
        if variable("LIBTORCH_USE_PYTORCH").is_some() { ask_python()? } else { look_in_folders()? };
    let context = Path::new("ATen/Context.h");
    if libtorch.includes.iter().any(|folder| folder.join(context).exists()) {
        return Ok(libtorch);
    }
    let looked: Vec<_> =
        libtorch.includes.iter().map(|folder| folder.display().to_string()).collect();
    Err(format!(
        "libtorch's C++ headers are missing: there is no {} in {}.\n\
         Point LIBTORCH at a folder that has `include` beside `lib` (the PyPI wheel's `torch` folder, or what `cargo xtask \
         setup` links as `.libtorch`), or LIBTORCH_INCLUDE at the folder that has `include`.",
        context.display(),
        looked.join(" and ")
    ))
}

fn look_in_folders() -> Result<Libtorch, String> {
    let installed = variable("LIBTORCH")
        .map(PathBuf::from)
        .or_else(system_libtorch)
        .or_else(downloaded_libtorch);
    let folder = variable("LIBTORCH_INCLUDE").map(PathBuf::from).or(installed);
    let folder = folder.ok_or(
        "libtorch is nowhere: set LIBTORCH to its folder, or LIBTORCH_USE_PYTORCH=1 to take the one of Python's PyTorch",
    )?;
    let abi = variable("LIBTORCH_CXX11_ABI").map(|abi| abi.to_string_lossy().into_owned());
    Ok(Libtorch {
        includes: vec![folder.join("include"), folder.join("include/torch/csrc/api/include")],
        cxx11_abi: abi.unwrap_or_else(|| "1".into()),
    })
}

fn system_libtorch() -> Option<PathBuf> {
    Path::new("/usr/lib/libtorch.so").exists().then(|| PathBuf::from("/usr"))
}

/// `torch-sys` says where the libraries are that it links to.
fn downloaded_libtorch() -> Option<PathBuf> {
    let libraries = PathBuf::from(env::var_os("DEP_TCH_LIBTORCH_LIB")?);
    libraries.parent().map(Path::to_path_buf)
}

fn ask_python() -> Result<Libtorch, String> {
    let in_environment = env::var_os("VIRTUAL_ENV").is_some() || cfg!(windows);
    let python = if in_environment { "python" } else { "python3" };
    let output = Command::new(python).args(["-c", PRINT_PYTORCH]).output();
    let output = output.map_err(|error| {
        format!("LIBTORCH_USE_PYTORCH is set, and {python} does not run: {error}")
    })?;

    let lines = String::from_utf8_lossy(&output.stdout);
    let cxx11_abi = lines.lines().find_map(|line| line.strip_prefix("CXX11: "));
    let cxx11_abi = cxx11_abi.ok_or_else(|| {
        let problem = String::from_utf8_lossy(&output.stderr);
        format!("LIBTORCH_USE_PYTORCH is set, and {python} has no PyTorch:\n{}", problem.trim())
    })?;
    let includes =
        lines.lines().filter_map(|line| line.strip_prefix("INCLUDE: ")).map(PathBuf::from);
    Ok(Libtorch { includes: includes.collect(), cxx11_abi: cxx11_abi.into() })
}

fn variable(name: &str) -> Option<OsString> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var_os(name)
}

fn compile(libtorch: &Libtorch) -> Result<(), String> {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .pic(true)
        .warnings(false)
        .files(SOURCES)
        .define("_GLIBCXX_USE_CXX11_ABI", &*libtorch.cxx11_abi);
    build.std("c++17").includes(&libtorch.includes);
    if env::var_os("CARGO_CFG_TARGET_OS").is_some_and(|os| os == "linux") {
        // `shim/gloo` is found as `gloo`.
        build.files(LINUX_SOURCES).include("shim");
    }
    build.try_compile("posttrain_shim").map_err(|error| {
        format!(
            "the shim between Rust and libtorch does not compile: {error}\n\
             It needs a C++17 compiler, as `torch-sys` does: install g++ or clang++ (Debian and Ubuntu: `apt install g++`; \
             macOS: `xcode-select --install`), or name one in CXX."
        )
    })
}
