//! Arms as jobs of a Kubernetes cluster, and a report that waits for them.

use crate::ExperimentError;
use k8s_openapi::Resource;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, LocalObjectReference, PersistentVolumeClaimVolumeSource,
    PodSpec, PodTemplateSpec, ResourceRequirements, SecretEnvSource, ServiceAccount, Toleration,
    Volume, VolumeMount,
};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use posttrain_store::replace_file;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// What the pods are made of and ask the cluster for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesConfig {
    /// What all objects' names begin with; one experiment of a name at a time.
    pub name: String,
    /// The namespace of all objects.
    pub namespace: String,
    /// The image that has the program. It must be given.
    pub image: String,
    /// The program in the image.
    pub program: String,
    /// The `PersistentVolumeClaim` with configuration, models and runs, which all pods can write
    /// to. It must be given.
    pub claim: String,
    /// Where it is mounted: the program's working folder.
    pub mount: String,
    /// Cores of an arm, which are its threads, too.
    pub cpus: Option<usize>,
    /// An arm's memory, such as `16Gi`.
    pub memory: Option<String>,
    /// GPUs of an arm.
    pub gpus: Option<usize>,
    /// The name under which the cluster counts GPUs.
    pub gpu_resource: String,
    /// How often an arm that failed is started again; one that was evicted or told to stop is not
    /// counted.
    pub restarts: i32,
    /// Seconds that an arm has to save its step when it is told to stop: longer than a step takes.
    pub grace_seconds: i64,
    /// Seconds after which an arm is given up, restarts included.
    pub deadline_seconds: Option<i64>,
    /// Labels of the nodes that may run it.
    pub node_selector: BTreeMap<String, String>,
    /// Keys of the nodes' taints that are tolerated.
    pub tolerated: Vec<String>,
    /// The `Secret` by which the image is pulled.
    pub pull_secret: Option<String>,
    /// A `Secret` whose keys are the pods' environment: a judge's key, a hub's token.
    pub environment_secret: Option<String>,
    /// The image of `kubectl`, 1.31 or newer, by which the report waits for the arms.
    pub kubectl_image: String,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            name: "posttrain".into(),
            namespace: "default".into(),
            image: String::new(),
            program: "four_models".into(),
            claim: String::new(),
            mount: "/work".into(),
            cpus: None,
            memory: None,
            gpus: None,
            gpu_resource: "nvidia.com/gpu".into(),
            restarts: 3,
            grace_seconds: 120,
            deadline_seconds: None,
            node_selector: BTreeMap::new(),
            tolerated: Vec::new(),
            pull_secret: None,
            environment_secret: None,
            kubectl_image: "registry.k8s.io/kubectl:v1.33.0".into(),
        }
    }
}

/// The objects of an experiment: a job for each arm, and one for the report, whose pod first waits
/// until all of them have ended, well or not. It may look at jobs, by a role of its own; the arms
/// have no access to the cluster.
///
/// ```
/// use posttrain_experiment::{KubernetesConfig, KubernetesJobs};
///
/// let config = KubernetesConfig {
///     image: "registry.example/posttrain:1".into(),
///     claim: "runs".into(),
///     ..KubernetesConfig::default()
/// };
/// let arguments = ["--config", "demo.toml", "--out", "runs/demo"];
/// let jobs = KubernetesJobs::of(&config, &["math", "generalist"], &arguments, "runs/demo".as_ref())?;
/// assert!(jobs.manifest()?.contains("\"posttrain-generalist\""));
/// # Ok::<(), posttrain_experiment::ExperimentError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct KubernetesJobs {
    /// A job for each arm, in their order.
    pub arms: Vec<Job>,
    /// What joins them.
    pub report: Job,
    /// Who the report's pod is.
    pub account: ServiceAccount,
    /// What it may do.
    pub role: Role,
    /// That it may.
    pub binding: RoleBinding,
    folder: PathBuf,
}

/// A run that is told to stop saves its step and ends with this.
const STOPPED: i32 = 130;
/// The label by which an experiment's arms are found.
const LABEL: &str = "posttrain/experiment";

impl KubernetesJobs {
    /// The objects for arms of these names. `arguments` are the program's, which all parts share:
    /// an arm adds `--arm NAME`, the report `--report`; their paths are those in the volume.
    /// `folder` is the run's, here, where the manifest goes into `kubernetes/`.
    ///
    /// # Errors
    /// [`ExperimentError::Field`] names what the cluster would not take: a name, a number out of
    /// range, two arms whose names become one.
    pub fn of(
        config: &KubernetesConfig,
        arms: &[impl AsRef<str>],
        arguments: &[impl AsRef<str>],
        folder: &Path,
    ) -> Result<Self, ExperimentError> {
        config.validate()?;
        ExperimentError::check("arms", !arms.is_empty(), "at least one", &arms.len())?;
        let names: Vec<String> = arms.iter().map(|arm| config.part(arm.as_ref())).collect();
        let different = names.iter().collect::<BTreeSet<_>>().len() == names.len();
        let expected = "names that differ in letters and digits";
        ExperimentError::check("arms", different, expected, &names.join(", "))?;
        for name in names.iter().chain([&config.part("report")]) {
            let fits = is_name(name) && name.len() <= 63;
            ExperimentError::check("kubernetes.name", fits, "short enough for a label", name)?;
        }

        // Kubernetes would put a variable in the place of `$(NAME)`.
        let word = |own: &dyn AsRef<str>| own.as_ref().replace("$(", "$$(");
        let shared: Vec<String> = arguments.iter().map(|own| word(own)).collect();
        let arms = arms.iter().zip(&names).map(|(arm, name)| {
            let own = ["--arm".to_owned(), arm.as_ref().to_owned()];
            let pod = PodSpec {
                automount_service_account_token: Some(false),
                ..config.pod([shared.as_slice(), &own].concat(), true)
            };
            config.job(name, Some(&config.name), pod)
        });
        let report = config.part("report");
        Ok(Self {
            arms: arms.collect(),
            // However long it waits for the arms.
            report: KubernetesConfig { deadline_seconds: None, ..config.clone() }.job(
                &report,
                None,
                config.report(&shared),
            ),
            account: ServiceAccount { metadata: config.meta(&report), ..Default::default() },
            role: Role {
                metadata: config.meta(&report),
                rules: Some(vec![PolicyRule {
                    api_groups: Some(vec![Job::GROUP.to_owned()]),
                    resources: Some(vec!["jobs".to_owned()]),
                    verbs: ["get", "list", "watch"].map(str::to_owned).into(),
                    ..Default::default()
                }]),
            },
            binding: RoleBinding {
                metadata: config.meta(&report),
                role_ref: RoleRef {
                    api_group: Role::GROUP.to_owned(),
                    kind: Role::KIND.to_owned(),
                    name: report.clone(),
                },
                subjects: Some(vec![Subject {
                    kind: ServiceAccount::KIND.to_owned(),
                    name: report,
                    namespace: Some(config.namespace.clone()),
                    ..Default::default()
                }]),
            },
            folder: folder.join("kubernetes"),
        })
    }

    /// All objects as one list, in JSON, which `kubectl` takes as it takes YAML.
    ///
    /// # Errors
    /// [`ExperimentError::Kubernetes`] if an object cannot be written.
    pub fn manifest(&self) -> Result<String, ExperimentError> {
        let objects: Result<Vec<Value>, serde_json::Error> =
            [to_value(&self.account), to_value(&self.role), to_value(&self.binding)]
                .into_iter()
                .chain(self.arms.iter().map(to_value))
                .chain([to_value(&self.report)])
                .collect();
        let text = objects.and_then(|items| {
            serde_json::to_string_pretty(
                &json!({ "apiVersion": "v1", "kind": "List", "items": items }),
            )
        });
        text.map_err(|error| ExperimentError::Kubernetes { reason: error.to_string() })
    }

    /// Writes the manifest into the run's `kubernetes/`; its path.
    ///
    /// # Errors
    /// [`ExperimentError::Store`] names the file.
    pub fn write(&self) -> Result<PathBuf, ExperimentError> {
        let path = self.folder.join("jobs.json");
        replace_file(&path, self.manifest()?.as_bytes())?;
        Ok(path)
    }

    /// Writes the manifest, has the cluster check all of it, and creates the objects; what
    /// `kubectl` says.
    ///
    /// # Errors
    /// [`ExperimentError::Store`] names the file; [`ExperimentError::Kubernetes`] has what
    /// `kubectl` says. An experiment of the same name that is there already is left as it is, and
    /// nothing is created.
    pub fn submit(&self) -> Result<String, ExperimentError> {
        let path = self.write()?;
        kubectl(&["create", "--dry-run=server", "--filename"], &path)?;
        kubectl(&["create", "--filename"], &path)
    }
}

impl KubernetesConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ExperimentError::Field`] names the first that is out of range, or that the cluster would
    /// not take.
    pub fn validate(&self) -> Result<(), ExperimentError> {
        let named = [
            ("kubernetes.name", Some(&self.name)),
            ("kubernetes.namespace", Some(&self.namespace)),
            ("kubernetes.claim", Some(&self.claim)),
            ("kubernetes.pull_secret", self.pull_secret.as_ref()),
            ("kubernetes.environment_secret", self.environment_secret.as_ref()),
        ];
        for (field, name) in named {
            let name = name.map_or("none", String::as_str);
            let expected = "letters from a to z, digits and -, and begin and end without -";
            ExperimentError::check(field, is_name(name), expected, name)?;
        }
        let words = [
            ("kubernetes.image", &self.image),
            ("kubernetes.program", &self.program),
            ("kubernetes.kubectl_image", &self.kubectl_image),
        ];
        for (field, word) in words {
            let fits = !word.is_empty() && word.chars().all(|c| c.is_ascii_graphic());
            ExperimentError::check(field, fits, "one word", word)?;
        }
        let mount = Path::new(&self.mount);
        let fits = mount.has_root() && mount.components().all(|part| part != Component::ParentDir);
        ExperimentError::check("kubernetes.mount", fits, "a path from the root", &self.mount)?;
        let memory = self.memory.as_deref().unwrap_or("1Gi");
        ExperimentError::check(
            "kubernetes.memory",
            is_memory(memory),
            "a number with Mi, Gi or Ti, such as 16Gi",
            memory,
        )?;
        for (field, count) in [("kubernetes.cpus", self.cpus), ("kubernetes.gpus", self.gpus)] {
            ExperimentError::check(field, count != Some(0), "at least 1", &0)?;
        }
        ExperimentError::check(
            "kubernetes.restarts",
            self.restarts >= 0,
            "at least 0",
            &self.restarts,
        )?;
        let seconds = [
            ("kubernetes.grace_seconds", self.grace_seconds),
            ("kubernetes.deadline_seconds", self.deadline_seconds.unwrap_or(1)),
        ];
        for (field, seconds) in seconds {
            ExperimentError::check(field, seconds >= 1, "at least 1", &seconds)?;
        }
        Ok(())
    }

    /// The name of a part's job.
    fn part(&self, part: &str) -> String {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        format!("{}-{}", self.name, part.chars().map(letter).collect::<String>())
    }

    fn meta(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.clone()),
            ..Default::default()
        }
    }

    fn job(&self, name: &str, experiment: Option<&str>, pod: PodSpec) -> Job {
        let labels = experiment.map(|own| BTreeMap::from([(LABEL.to_owned(), own.to_owned())]));
        Job {
            metadata: ObjectMeta { labels, ..self.meta(name) },
            spec: Some(JobSpec {
                active_deadline_seconds: self.deadline_seconds,
                backoff_limit: Some(self.restarts),
                pod_failure_policy: Some(PodFailurePolicy { rules: not_its_fault() }),
                template: PodTemplateSpec { spec: Some(pod), ..Default::default() },
                ..Default::default()
            }),
            status: None,
        }
    }

    /// A pod that runs the program.
    fn pod(&self, arguments: Vec<String>, with_gpus: bool) -> PodSpec {
        let variable = |name: &str, value: String| EnvVar {
            name: name.to_owned(),
            value: Some(value),
            ..Default::default()
        };
        // A program sees all of the node's cores.
        let threads = self.cpus.map(|cpus| {
            ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"].map(|name| variable(name, cpus.to_string()))
        });
        let secret = self.environment_secret.as_ref().map(|name| EnvFromSource {
            secret_ref: Some(SecretEnvSource { name: name.clone(), optional: Some(false) }),
            ..Default::default()
        });
        let container = Container {
            name: "posttrain".to_owned(),
            image: Some(self.image.clone()),
            command: Some(vec![self.program.clone()]),
            args: Some(arguments),
            working_dir: Some(self.mount.clone()),
            env: threads.map(Into::into),
            env_from: secret.map(|secret| vec![secret]),
            resources: Some(self.resources(with_gpus)),
            volume_mounts: Some(vec![VolumeMount {
                name: "work".to_owned(),
                mount_path: self.mount.clone(),
                ..Default::default()
            }]),
            ..Default::default()
        };
        let tolerated = |key: &String| Toleration {
            key: Some(key.clone()),
            operator: Some("Exists".to_owned()),
            ..Default::default()
        };
        PodSpec {
            containers: vec![container],
            restart_policy: Some("Never".to_owned()),
            termination_grace_period_seconds: Some(self.grace_seconds),
            image_pull_secrets: self
                .pull_secret
                .as_ref()
                .map(|name| vec![LocalObjectReference { name: name.clone() }]),
            node_selector: (!self.node_selector.is_empty()).then(|| self.node_selector.clone()),
            tolerations: (!self.tolerated.is_empty())
                .then(|| self.tolerated.iter().map(tolerated).collect()),
            volumes: Some(vec![Volume {
                name: "work".to_owned(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: self.claim.clone(),
                    ..Default::default()
                }),
                ..Default::default()
            }]),
            ..Default::default()
        }
    }

    /// What is asked for is what may be used, and nothing where nothing is said.
    fn resources(&self, with_gpus: bool) -> ResourceRequirements {
        let gpus = self.gpus.filter(|_| with_gpus);
        let asked: BTreeMap<String, Quantity> = [
            ("cpu", self.cpus.map(|cpus| cpus.to_string())),
            ("memory", self.memory.clone()),
            (self.gpu_resource.as_str(), gpus.map(|gpus| gpus.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, count)| Some((name.to_owned(), Quantity(count?))))
        .collect();
        ResourceRequirements {
            requests: Some(asked.clone()),
            limits: Some(asked),
            ..Default::default()
        }
    }

    /// The report's pod: it waits until no arm's job is without an end.
    fn report(&self, shared: &[String]) -> PodSpec {
        // `kubectl` has no "one or the other", and a job has other conditions besides
        // (`FailureTarget`, `SuccessCriteriaMet`, `Suspended`): of them all, `Complete` and `Failed`
        // alone are not behind `Failed` by the alphabet.
        let ended = r#"jsonpath={.status.conditions[?(@.type<="Failed")].type}"#;
        let wait = Container {
            name: "wait-for-arms".to_owned(),
            image: Some(self.kubectl_image.clone()),
            command: Some(vec!["kubectl".to_owned()]),
            args: Some(vec![
                "wait".to_owned(),
                "jobs".to_owned(),
                format!("--selector={LABEL}={}", self.name),
                format!("--for={ended}"),
                // A week, as `kubectl` has it.
                "--timeout=-1s".to_owned(),
            ]),
            ..Default::default()
        };
        PodSpec {
            init_containers: Some(vec![wait]),
            service_account_name: Some(self.part("report")),
            ..self.pod([shared, &["--report".to_owned()]].concat(), false)
        }
    }
}

/// A pod that was evicted, or told to stop and has saved its step, is started again and not
/// counted.
fn not_its_fault() -> Vec<PodFailurePolicyRule> {
    vec![
        PodFailurePolicyRule {
            action: "Ignore".to_owned(),
            on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                type_: "DisruptionTarget".to_owned(),
                status: "True".to_owned(),
            }]),
            ..Default::default()
        },
        PodFailurePolicyRule {
            action: "Ignore".to_owned(),
            on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                container_name: Some("posttrain".to_owned()),
                operator: "In".to_owned(),
                values: vec![STOPPED],
            }),
            ..Default::default()
        },
    ]
}

fn to_value(object: &impl Serialize) -> Result<Value, serde_json::Error> {
    serde_json::to_value(object)
}

/// Whether a text is a name of Kubernetes' (an RFC 1123 label, but for its length).
fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(fits) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_memory(text: &str) -> bool {
    ["Mi", "Gi", "Ti"].iter().any(|unit| {
        let number = text.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
        number.is_some_and(|number| number > 0)
    })
}

/// Runs `kubectl` on a file; what it says.
fn kubectl(arguments: &[&str], path: &Path) -> Result<String, ExperimentError> {
    let refused = |reason: String| ExperimentError::Kubernetes { reason };
    let output = Command::new("kubectl").args(arguments).arg(path).output();
    let output = output.map_err(|error| refused(format!("kubectl cannot be run: {error}")))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> KubernetesConfig {
        KubernetesConfig {
            image: "registry.example/posttrain:1".into(),
            claim: "runs".into(),
            ..KubernetesConfig::default()
        }
    }

    fn jobs(config: &KubernetesConfig) -> KubernetesJobs {
        let shared = ["--config", "demo.toml", "--out", "runs/demo"];
        KubernetesJobs::of(config, &["math", "Social_1"], &shared, "runs/demo".as_ref()).unwrap()
    }

    fn pod(job: &Job) -> &PodSpec {
        job.spec.as_ref().unwrap().template.spec.as_ref().unwrap()
    }

    #[test]
    fn what_a_cluster_would_not_take_is_refused_by_its_field() {
        let of = |config: KubernetesConfig| config.validate().unwrap_err().to_string();
        let cases = [
            (KubernetesConfig { image: String::new(), ..config() }, "kubernetes.image"),
            (KubernetesConfig { claim: String::new(), ..config() }, "kubernetes.claim"),
            (KubernetesConfig { name: "Four".into(), ..config() }, "kubernetes.name"),
            (KubernetesConfig { namespace: "a/b".into(), ..config() }, "namespace"),
            (KubernetesConfig { mount: "work".into(), ..config() }, "kubernetes.mount"),
            (KubernetesConfig { memory: Some("16G B".into()), ..config() }, "kubernetes.memory"),
            (KubernetesConfig { gpus: Some(0), ..config() }, "kubernetes.gpus"),
            (KubernetesConfig { restarts: -1, ..config() }, "kubernetes.restarts"),
            (KubernetesConfig { grace_seconds: 0, ..config() }, "kubernetes.grace_seconds"),
            (KubernetesConfig { deadline_seconds: Some(0), ..config() }, "deadline_seconds"),
        ];
        for (config, field) in cases {
            assert!(of(config).contains(field), "{field}");
        }
        let refused = |config: &KubernetesConfig, arms: &[&str]| {
            let jobs = KubernetesJobs::of(config, arms, &["a"], "b".as_ref());
            jobs.unwrap_err().to_string()
        };
        assert!(refused(&config(), &[]).contains("arms"));
        assert!(refused(&config(), &["a.b", "a_b"]).contains("posttrain-a-b, posttrain-a-b"));
        let long = KubernetesConfig { name: "n".repeat(60), ..config() };
        assert!(refused(&long, &["math"]).contains("kubernetes.name"));
    }

    #[test]
    fn an_arm_is_a_job_that_is_not_counted_out_by_what_happens_to_its_node() {
        let asked = KubernetesConfig {
            cpus: Some(4),
            memory: Some("16Gi".into()),
            gpus: Some(1),
            tolerated: vec!["gpu".into()],
            environment_secret: Some("keys".into()),
            ..config()
        };
        let jobs = jobs(&asked);
        let names: Vec<_> =
            jobs.arms.iter().map(|job| job.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["posttrain-math", "posttrain-social-1"]);

        let arm = pod(&jobs.arms[1]);
        let container = &arm.containers[0];
        let arguments = container.args.clone().unwrap();
        assert_eq!(arguments, ["--config", "demo.toml", "--out", "runs/demo", "--arm", "Social_1"]);
        let limits = container.resources.clone().unwrap().limits.unwrap();
        assert_eq!(limits["nvidia.com/gpu"], Quantity("1".into()));
        assert_eq!(container.env.as_ref().unwrap()[0].value.as_deref(), Some("4"));
        assert_eq!(arm.automount_service_account_token, Some(false));

        let spec = jobs.arms[0].spec.as_ref().unwrap();
        let rules = &spec.pod_failure_policy.as_ref().unwrap().rules;
        assert_eq!(rules[1].on_exit_codes.as_ref().unwrap().values, [130]);
        // Kubernetes wants that of a job with such rules.
        assert_eq!(arm.restart_policy.as_deref(), Some("Never"));
    }

    #[test]
    fn the_report_waits_for_this_experiments_arms_and_has_no_gpu() {
        let jobs = jobs(&KubernetesConfig {
            gpus: Some(1),
            name: "demo".into(),
            deadline_seconds: Some(60),
            ..config()
        });
        let report = pod(&jobs.report);
        let wait = report.init_containers.as_ref().unwrap()[0].args.clone().unwrap();
        assert!(wait.contains(&"--selector=posttrain/experiment=demo".to_owned()), "{wait:?}");
        let labels = |job: &Job| job.metadata.labels.clone().unwrap_or_default();
        assert_eq!(labels(&jobs.arms[0])["posttrain/experiment"], "demo");
        assert!(labels(&jobs.report).is_empty(), "it would wait for itself");
        let deadline = |job: &Job| job.spec.as_ref().unwrap().active_deadline_seconds;
        assert_eq!((deadline(&jobs.arms[0]), deadline(&jobs.report)), (Some(60), None));
        assert_eq!(report.service_account_name, jobs.account.metadata.name);
        assert_eq!(jobs.binding.role_ref.name, jobs.role.metadata.name.clone().unwrap());
        assert!(report.containers[0].resources.clone().unwrap().limits.unwrap().is_empty());
        assert_eq!(report.containers[0].args.as_ref().unwrap().last().unwrap(), "--report");
    }

    #[test]
    fn a_manifest_is_read_as_what_it_was_written_from() {
        let jobs = jobs(&config());
        let list: Value = serde_json::from_str(&jobs.manifest().unwrap()).unwrap();
        let items = list["items"].as_array().unwrap();
        let kinds: Vec<&str> = items.iter().map(|item| item["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["ServiceAccount", "Role", "RoleBinding", "Job", "Job", "Job"]);
        let report: Job = serde_json::from_value(items[5].clone()).unwrap();
        assert_eq!(report, jobs.report);
    }
}
