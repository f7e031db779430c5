//! The arms and the report as jobs of a cluster.

use super::{Args, Launch};
use anyhow::{Context, Result, ensure};
use examples::read_config;
use posttrain::experiment::{ExperimentConfig, SlurmConfig, SlurmJobs, SlurmSubmitted, plan};
#[cfg(feature = "kubernetes")]
use posttrain::experiment::{KubernetesConfig, KubernetesJobs};
use std::path::{Path, PathBuf};

/// Jobs of a cluster.
pub enum Jobs {
    /// Of Slurm.
    Slurm(SlurmJobs),
    /// Of Kubernetes.
    #[cfg(feature = "kubernetes")]
    Kubernetes(Box<KubernetesJobs>),
}

/// The jobs that `--launch` asks for; none where this machine runs the arms.
pub fn jobs(args: &Args, config: &ExperimentConfig) -> Result<Option<Jobs>> {
    if args.launch == Launch::Local {
        ensure!(args.cluster.is_none(), "--cluster: expected --launch slurm or kubernetes with it");
        return Ok(None);
    }
    let one_process = args.arm.is_some() || args.report || !args.also.is_empty();
    let many = args.parallel > 1 || args.retries != 1;
    ensure!(
        !one_process && !many,
        "--launch: expected none of --arm, --report, --also, --parallel and --retries beside it"
    );

    let (_, arms) = plan(&config.clone().resolved())?;
    let names: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
    let file = args.cluster.as_ref().map_or("--launch".into(), |file| file.display().to_string());
    let jobs = match args.launch {
        Launch::Slurm => slurm(args, &names).map(Jobs::Slurm),
        _ => kubernetes(args, &names),
    };
    jobs.with_context(|| file).map(Some)
}

/// Jobs that run this same program on the same files.
fn slurm(args: &Args, arms: &[&str]) -> Result<SlurmJobs> {
    let asked = args.cluster.as_deref().map(read_config::<SlurmConfig>).transpose()?;
    let absolute = |path: &Path| -> Result<PathBuf> { Ok(std::path::absolute(path)?) };
    let out = absolute(&args.out)?;
    let mut program = vec![std::env::current_exe()?.display().to_string()];
    program.extend(shared(args, &absolute(&args.config)?, &out));
    Ok(SlurmJobs::of(&asked.unwrap_or_default(), arms, &program, &out)?)
}

/// Jobs that run the image's program on the volume's files, which have there the paths that they
/// have here from the working folder on.
#[cfg(feature = "kubernetes")]
fn kubernetes(args: &Args, arms: &[&str]) -> Result<Jobs> {
    let file = args.cluster.as_deref().context("expected --cluster FILE with an image")?;
    let asked: KubernetesConfig = read_config(file)?;
    for (name, path) in [("--config", &args.config), ("--out", &args.out)] {
        let fits = path.is_relative() || path.starts_with(&asked.mount);
        ensure!(
            fits,
            "{name} {}: expected a path that the volume has, from its root on or below {}",
            path.display(),
            asked.mount
        );
    }
    let arguments = shared(args, &args.config, &args.out);
    let jobs = KubernetesJobs::of(&asked, arms, &arguments, &args.out)?;
    Ok(Jobs::Kubernetes(Box::new(jobs)))
}

#[cfg(not(feature = "kubernetes"))]
fn kubernetes(_: &Args, _: &[&str]) -> Result<Jobs> {
    anyhow::bail!(
        "--launch kubernetes: this program is built without it; build it with --features kubernetes"
    )
}

/// The arguments that all parts share.
fn shared(args: &Args, config: &Path, out: &Path) -> Vec<String> {
    let text = |path: &Path| path.display().to_string();
    let mut shared = vec!["--config".to_owned(), text(config), "--out".to_owned(), text(out)];
    shared.extend(args.seed.iter().flat_map(|seed| ["--seed".to_owned(), seed.to_string()]));
    shared
}

impl Jobs {
    /// What a cluster would be given.
    pub fn text(&self) -> Result<String> {
        Ok(match self {
            Self::Slurm(jobs) => format!("{}\n{}", jobs.arms, jobs.report),
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(jobs) => jobs.manifest()?,
        })
    }

    /// Gives it to the cluster; what to tell.
    pub fn submit(&self, out: &Path) -> Result<String> {
        Ok(match self {
            Self::Slurm(jobs) => {
                let SlurmSubmitted { arms, report } = jobs.submit()?;
                let logs = out.join("slurm");
                format!(
                    "submitted {arms} (the arms) and {report} (the report, after them); logs are in {}",
                    logs.display()
                )
            }
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(jobs) => jobs.submit()?,
        })
    }
}
