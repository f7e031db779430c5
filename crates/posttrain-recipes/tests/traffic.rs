//! Learning from traffic: what is said is joined and learned from, the gate decides, and whatever
//! happens to the process, nothing acknowledged is lost and nothing serves that did not pass.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digits;
mod world;

use posttrain_chat::ToolFormat;
use posttrain_lora::LoraConfig;
use posttrain_recipes::PromptStyle;
use posttrain_recipes::traffic::{
    CanaryConfig, CaptureConfig, Feedback, FeedbackSource, GateConfig, GateOutcome, GateTest,
    HeldOut, Joined, LearnConfig, LedgerLine, Served, Traffic, TrafficConfig, TrafficLine, Verdict,
};
use posttrain_rollout::service::{SampleRequest, SamplingService, SamplingServiceConfig};
use posttrain_rollout::{EngineConfig, Request, SamplingParams};
use posttrain_store::read_log;
use std::path::Path;
use std::sync::Arc;
use world::{World, examples, reward};

fn config() -> TrafficConfig {
    TrafficConfig {
        seed: 3,
        lora: LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() },
        learn: LearnConfig {
            completions: 64,
            batch: 32,
            learning_rate: 5e-3,
            ..LearnConfig::default()
        },
        gate: GateConfig { tasks: 400, batch: 50, ..GateConfig::default() },
        ..TrafficConfig::default()
    }
}

fn held_out() -> HeldOut {
    HeldOut {
        tasks: examples(1000..1400),
        reward: reward(),
        prompt: PromptStyle::default(),
        sampling: SamplingParams { max_tokens: 4, ..SamplingParams::default() },
        engine: EngineConfig::default(),
        tool_format: ToolFormat::Hermes,
        tools: Vec::new(),
    }
}

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A server without its wires.
struct Site {
    world: World,
    service: SamplingService,
    traffic: Arc<Traffic>,
    learner: posttrain_recipes::traffic::Learner,
    asked: u64,
    /// Digits of a question: the gate's have two.
    digits: usize,
    temperature: f64,
}

impl Site {
    fn open(folder: &Path, config: TrafficConfig) -> Self {
        let world = World::new();
        let tokenizer = Some(world.model.tokenizer.clone());
        let engine = EngineConfig { keep_tokens: 1000, ..EngineConfig::default() };
        let settings = SamplingServiceConfig { engine, ..SamplingServiceConfig::default() };
        let service =
            SamplingService::start(world.model.decoder.clone(), tokenizer, settings).unwrap();
        let model = world.model.clone();
        let (traffic, learner) =
            Traffic::start(model, service.client(), held_out(), config, folder).unwrap();
        Self { world, service, traffic, learner, asked: 0, digits: 3, temperature: 1.0 }
    }

    /// Answers one question; whether it was answered rightly.
    fn ask(&mut self, id: &str, user: &str) -> bool {
        self.asked += 1;
        let digits = [self.asked % 10, self.asked / 10 % 10, self.asked / 100 % 10];
        let digits: Vec<String> = digits[..self.digits].iter().map(u64::to_string).collect();
        let question = digits.join(" ");
        let model = &self.world.model;
        let prompt =
            PromptStyle::default().encode(&question, &model.tokenizer, &model.template).unwrap();
        let chosen = self.traffic.choose(id);
        let params = SamplingParams {
            max_tokens: 4,
            seed: self.asked,
            temperature: self.temperature,
            ..SamplingParams::default()
        };
        let request = Request::new(prompt.clone(), params).policy(Some(chosen.policy.clone()));
        let request = SampleRequest::new(request);
        let request = match chosen.name {
            Some(name) => request.policy_name(name),
            None => request,
        };
        let outcome = self.service.client().submit_blocking(request).unwrap().wait().remove(0);
        let completion = outcome.result.unwrap();
        let served = Served {
            id: id.into(),
            time: now(),
            user: Some(user.into()),
            conversation: Some(format!("about {id}")),
            route: None,
            version: completion.token_versions[0],
            propensity: chosen.propensity,
            temperature: self.temperature,
            prompt,
            tokens: completion.tokens,
            logprobs: completion.logprobs,
            versions: completion.token_versions,
            text: Some(completion.text.clone()),
        };
        assert!(self.traffic.capture(served, || question).unwrap());
        completion.text.split(' ').take(2).any(|word| word == "7")
    }

    /// Takes down a completion of nobody's by the present version.
    fn capture(&self, prompt: &[i64]) {
        let version = self.traffic.state().present;
        let served = Served {
            id: "a long one".into(),
            time: now(),
            user: None,
            conversation: None,
            route: None,
            version,
            propensity: 1.0,
            temperature: 1.0,
            prompt: prompt.to_vec(),
            tokens: vec![2],
            logprobs: vec![-1.0],
            versions: vec![version],
            text: None,
        };
        assert!(self.traffic.capture(served, String::new).unwrap());
    }

    fn say(&self, id: &str, value: f64) -> Option<Joined> {
        let feedback = Feedback { id: id.into(), time: 0.0, source: FeedbackSource::Score, value };
        self.traffic.feedback(&feedback).unwrap()
    }

    /// Has so many questions answered, and says of each what is true.
    fn hour(&mut self, name: &str, requests: usize) {
        for n in 0..requests {
            let id = format!("{name}-{n}");
            let right = self.ask(&id, "lovelace");
            assert_eq!(self.say(&id, f64::from(u8::from(right))), Some(Joined::Waiting));
        }
    }

    /// Ends as a process does that is killed: nothing is told to anybody.
    fn reopen(self, folder: &Path, config: TrafficConfig) -> Self {
        drop(self);
        Self::open(folder, config)
    }
}

fn decisions(folder: &Path) -> Vec<LedgerLine> {
    read_log(&folder.join("decisions.jsonl")).unwrap()
}

/// The versions that the gate has passed, by the file alone.
fn passed(folder: &Path) -> Vec<u64> {
    let passed = decisions(folder).into_iter().filter_map(|line| match line {
        LedgerLine::Decided(d) if d.verdict == Verdict::Accepted => Some(d.version),
        _ => None,
    });
    std::iter::once(0).chain(passed).collect()
}

#[test]
fn what_is_said_makes_a_better_policy_that_serves_and_is_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("traffic");
    let mut site = Site::open(&folder, config());
    for hour in 0..12 {
        site.hour(&format!("hour-{hour}"), 64);
        assert!(site.learner.turn().unwrap());
        if site.traffic.state().accepted() >= 2 {
            break;
        }
    }
    let state = site.traffic.state();
    assert!(state.accepted() >= 2, "{:?}", state.decisions);
    let last = state.gate().filter(|d| d.verdict == Verdict::Accepted).last().unwrap();
    assert!(
        last.better <= 0.05 && last.candidate_share.share > last.present_share.share,
        "{last:?}"
    );
    assert_eq!(state.present, last.version);
    assert!(passed(&folder).contains(&state.present));
    // What is learned from is told by version, with who was asked.
    assert_eq!(state.versions.iter().map(|v| v.served).sum::<usize>() % 64, 0);

    // What waits, waits still; what serves, serves.
    site.hour("later", 10);
    let before = site.traffic.state();
    let chosen = site.traffic.choose("x");
    let site = site.reopen(&folder, config());
    let after = site.traffic.state();
    assert_eq!((after.present, after.ready), (before.present, 10));
    assert_eq!(after.decisions, before.decisions);
    assert_eq!(after.versions, before.versions);
    assert_eq!(site.traffic.choose("x").version, chosen.version);
    assert_eq!(site.say("hour-0-3", 1.0), Some(Joined::Late));
    assert_eq!(site.say("nobody", 1.0), None);
    let source = FeedbackSource::Score;
    let beyond = Feedback { id: "later-0".into(), time: 0.0, source, value: 2.0 };
    assert!(site.traffic.feedback(&beyond).is_err());
}

#[test]
fn a_candidate_whose_file_is_broken_is_refused_and_what_served_serves() {
    type Break = fn(&Path) -> std::io::Result<()>;
    let breaks: [(&str, Break); 3] = [
        ("another checksum", |path| {
            let mut bytes = std::fs::read(path)?;
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(path, bytes)
        }),
        ("bytes", |path| std::fs::write(path, b"half")),
        ("missing", |path| std::fs::remove_file(path)),
    ];
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("traffic");
    let mut site = Site::open(&folder, config());
    for (n, (why, broken)) in breaks.into_iter().enumerate() {
        // It is made, and the process dies before it is decided on.
        site.hour(&format!("hour-{n}"), 64);
        site.traffic.stop();
        assert!(!site.learner.turn().unwrap());
        site = site.reopen(&folder, config());
        let candidate = n as u64 + 1;
        let versions = folder.join("versions");
        let of = |version: u64| versions.join(format!("version-{version:06}"));
        copy_folder(&of(0), &of(candidate));
        broken(&of(candidate).join("adapter/adapter_model.safetensors")).unwrap();

        assert!(site.learner.turn().unwrap());
        let state = site.traffic.state();
        let decision = state.gate().last().unwrap();
        assert_eq!((decision.version, decision.verdict), (candidate, Verdict::Refused));
        assert!(decision.reason.contains(why), "{}", decision.reason);
        assert_eq!(state.present, 0);
        // Nothing of the feedback was lost with it.
        assert_eq!(state.ready, 64 * (n + 1));
    }
    assert!(site.traffic.reinstate(1, "why not").is_err());
    assert!(site.traffic.roll_back("nothing before it").is_err());
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn the_gates_own_tasks_are_never_learned_from() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("traffic");
    let settings = TrafficConfig {
        learn: LearnConfig { completions: 2, batch: 2, ..config().learn },
        gate: GateConfig { tasks: 50, batch: 50, ..config().gate },
        ..config()
    };
    let mut site = Site::open(&folder, settings.clone());
    site.digits = 2;
    site.hour("hour", 2);
    site.traffic.stop();
    assert!(!site.learner.turn().unwrap());
    let mut site = site.reopen(&folder, settings);
    assert_eq!(site.traffic.state().ready, 2);
    std::thread::scope(|scope| {
        let stopping = site.traffic.clone();
        scope.spawn(move || {
            while stopping.state().ready > 0 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            stopping.stop();
        });
        while site.learner.turn().unwrap() {}
    });
    assert_eq!(site.traffic.state().decisions, []);
}

#[test]
fn what_was_drawn_greedily_is_left_out_and_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let learn = LearnConfig { completions: 12, batch: 4, ..config().learn };
    let gate = GateConfig { tasks: 50, ..config().gate };
    let mut site =
        Site::open(&dir.path().join("traffic"), TrafficConfig { learn, gate, ..config() });
    site.temperature = 0.0;
    site.hour("greedy", 4);
    site.temperature = 1.0;
    site.hour("drawn", 8);
    assert!(site.learner.turn().unwrap());
    let state = site.traffic.state();
    let learned = state.gate().next().unwrap().learned;
    assert_eq!((learned.completions, learned.greedy), (8, 4));
}

#[test]
fn what_was_built_on_a_version_that_was_withdrawn_does_not_serve() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("traffic");
    let mut site = Site::open(&folder, config());
    for hour in 0..12 {
        site.hour(&format!("hour-{hour}"), 64);
        site.learner.turn().unwrap();
        if site.traffic.state().present > 0 {
            break;
        }
    }
    let present = site.traffic.state().present;
    assert!(present > 0);
    // A candidate that a killed process made while that version served, as good as it.
    let candidate = site.traffic.state().gate().last().unwrap().version + 1;
    let of = |kind: &str, version: u64| folder.join(format!("{kind}/version-{version:06}"));
    copy_folder(&of("versions", present), &of("versions", candidate));
    let provenance = of("provenance", present).with_extension("json");
    let mut made: serde_json::Value =
        serde_json::from_slice(&std::fs::read(provenance).unwrap()).unwrap();
    made["present"] = present.into();
    let path = of("provenance", candidate).with_extension("json");
    std::fs::write(path, made.to_string()).unwrap();

    let back = site.traffic.roll_back("by hand").unwrap();
    assert!(site.learner.turn().unwrap());
    let state = site.traffic.state();
    let decision = state.gate().last().unwrap();
    assert_eq!((decision.version, decision.verdict), (candidate, Verdict::Refused));
    assert!(decision.reason.contains("taken out of service"), "{}", decision.reason);
    assert_eq!(state.present, back.to);

    assert!(site.traffic.reinstate(back.to, "it serves").is_err());

    // It reads what was asked last before it serves.
    let client = site.service.client();
    let prompt: Vec<i64> = (0..40).map(|n| 2 + n * 7 % 10).collect();
    site.capture(&prompt);
    let before = client.stats();
    site.traffic.reinstate(present, "again").unwrap();
    let warm = client.stats();
    assert_eq!(warm.prompt_tokens - before.prompt_tokens, 40);
    let policy = site.traffic.choose("anybody").policy;
    assert_eq!(policy.version, present);
    let params = SamplingParams { max_tokens: 1, ..SamplingParams::default() };
    let request = SampleRequest::new(Request::new(prompt, params).policy(policy));
    client.submit_blocking(request).unwrap().wait().remove(0).result.unwrap();
    assert_eq!(client.stats().kept_tokens - warm.kept_tokens, 39);

    assert_eq!(site.traffic.roll_back("again").unwrap().to, back.to);
}

#[test]
fn who_is_deleted_is_found_when_the_log_that_named_them_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("traffic");
    let capture = CaptureConfig { file_bytes: 2000, files: 2, ..CaptureConfig::default() };
    let gate = GateConfig { tasks: 50, ..config().gate };
    let settings = TrafficConfig { capture, gate, ..config() };
    let mut site = Site::open(&folder, settings);
    for n in 0..32 {
        for user in ["lovelace", "emil"] {
            let id = format!("{user}-{n}");
            let right = site.ask(&id, user);
            site.say(&id, f64::from(u8::from(right)));
        }
    }
    assert!(site.learner.turn().unwrap());
    // What waits is in memory alone after this.
    let waits =
        ["lovelace-waits", "emil-waits"].map(|id| (site.ask(id, &id[..id.len() - 6]), id).1);
    for n in 0..40 {
        site.ask(&format!("later-{n}"), "emil");
    }
    let log = std::fs::read_dir(folder.join("log")).unwrap();
    let log: String =
        log.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    assert!(!log.contains("lovelace"));

    let (deleted, versions) = site.traffic.forget("lovelace").unwrap();
    assert_eq!((deleted.served, versions), (0, vec![1]));
    assert_eq!(waits.map(|id| site.say(id, 1.0)), [None, Some(Joined::Waiting)]);
    let provenance = std::fs::read_to_string(folder.join("provenance/version-000001.json"));
    assert!(!provenance.unwrap().contains("lovelace"));
}

#[test]
fn who_is_deleted_is_gone_from_the_log_and_from_what_versions_learned_from() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("traffic");
    // Several files.
    let capture = CaptureConfig { file_bytes: 4000, ..CaptureConfig::default() };
    let settings = TrafficConfig { capture, ..config() };
    let mut site = Site::open(&folder, settings);
    for n in 0..32 {
        for user in ["lovelace", "emil"] {
            let id = format!("{user}-{n}");
            let right = site.ask(&id, user);
            site.say(&id, f64::from(u8::from(right)));
        }
    }
    assert!(site.learner.turn().unwrap());
    site.ask("lovelace-last", "lovelace");

    let files = || {
        let files = std::fs::read_dir(folder.join("log")).unwrap();
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect::<Vec<_>>()
    };
    assert!(files().len() > 2);
    let (deleted, versions) = site.traffic.forget("lovelace").unwrap();
    assert_eq!((deleted.served, deleted.feedback), (33, 32));
    let text = files().concat();
    assert!(!text.contains("lovelace") && text.contains("emil-31"));
    assert_eq!(site.say("lovelace-last", 1.0), None);
    let provenance = folder.join("provenance/version-000001.json");
    let provenance = std::fs::read_to_string(provenance).unwrap();
    assert!(
        !provenance.contains("lovelace") && provenance.contains("\"deleted\":32"),
        "{provenance}"
    );
    assert_eq!(versions, [1]);
    assert_eq!(site.traffic.forget("lovelace").unwrap().0.served, 0);
}

#[test]
fn what_must_not_be_kept_is_served_and_not_kept() {
    let capture = CaptureConfig {
        text: false,
        user: false,
        conversation: false,
        route: false,
        exclude: vec!["secret".into()],
        ..CaptureConfig::default()
    };
    let served = |text: &str| Served {
        id: "a".into(),
        time: 0.0,
        user: Some("lovelace".into()),
        conversation: Some("c1".into()),
        route: Some("greeting".into()),
        version: 0,
        propensity: 1.0,
        temperature: 1.0,
        prompt: vec![1],
        tokens: vec![2],
        logprobs: vec![0.0],
        versions: vec![0],
        text: Some(text.into()),
    };
    let settings = TrafficConfig {
        capture: capture.clone(),
        canary: CanaryConfig { share: 0.5, pairs: 40 },
        ..config()
    };
    assert!(settings.validate().unwrap_err().to_string().contains("canary.share"));
    assert_eq!(capture.kept(served("a secret"), || "prompt".into()), None);
    assert_eq!(capture.kept(served("text"), || "my secret".into()), None);
    let kept = capture.kept(served("text"), || "prompt".into()).unwrap();
    assert_eq!((kept.user, kept.text, kept.conversation, kept.route), (None, None, None, None));
}

#[test]
fn a_trial_ends_in_service_or_is_taken_back() {
    for (good, present) in [(true, 1), (false, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("traffic");
        let canary = CanaryConfig { share: 0.5, pairs: 40 };
        let gate = GateConfig { margin: 0.3, guard_margin: 0.3, ..config().gate };
        let settings = TrafficConfig { canary, gate, ..config() };
        let mut site = Site::open(&folder, settings.clone());
        // Until a candidate is on trial.
        for hour in 0.. {
            assert!(hour < 12, "{:?}", site.traffic.state().decisions);
            site.hour(&format!("hour-{hour}"), 64);
            site.learner.turn().unwrap();
            if site.traffic.state().canary.is_some() {
                break;
            }
        }
        let state = site.traffic.state();
        let candidate = state.canary.unwrap();
        assert_eq!(state.present, 0);
        // A restart does not promote it.
        let mut site = site.reopen(&folder, settings);
        assert_eq!(site.traffic.state().canary, Some(candidate));

        let mut answered = [0, 0];
        for n in 0..400 {
            let id = format!("trial-{n}");
            let version = site.traffic.choose(&id).version;
            answered[usize::from(version == candidate)] += 1;
            site.ask(&id, "lovelace");
            site.say(&id, f64::from(u8::from((version == candidate) == good)));
            if site.traffic.state().canary.is_none() {
                break;
            }
        }
        assert!(answered.iter().all(|n| *n > 5), "{answered:?}");
        let last = site.traffic.state();
        let expected = if present == 1 { candidate } else { 0 };
        assert_eq!((last.present, last.canary), (expected, None), "{:?}", last.decisions.last());
        if present == 1 {
            let back = site.traffic.roll_back("by hand").unwrap();
            assert_eq!((back.from, back.to), (candidate, 0));
            site.traffic.reinstate(candidate, "again").unwrap();
            assert_eq!(site.traffic.state().present, candidate);
        } else {
            assert!(matches!(last.decisions.last(), Some(LedgerLine::RolledBack(_))));
        }
    }
}

#[test]
fn what_is_said_again_decides_no_trial() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("traffic");
    let canary = CanaryConfig { share: 0.5, pairs: 40 };
    let gate = GateConfig { margin: 0.3, guard_margin: 0.3, ..config().gate };
    let mut site = Site::open(&folder, TrafficConfig { canary, gate, ..config() });
    for hour in 0..12 {
        site.hour(&format!("hour-{hour}"), 64);
        site.learner.turn().unwrap();
        if site.traffic.state().canary.is_some() {
            break;
        }
    }
    let canary = site.traffic.state().canary;
    assert!(canary.is_some());
    // One completion of each, and one user who will not stop saying so.
    let of = |site: &mut Site, version| {
        let ids = (0..).map(|n| format!("trial-{version}-{n}"));
        let mut own = ids.filter(|id| site.traffic.choose(id).version == version);
        let id = own.next().unwrap();
        drop(own);
        site.ask(&id, "lovelace");
        id
    };
    let (own, other) = (of(&mut site, canary.unwrap()), of(&mut site, 0));
    for _ in 0..200 {
        site.say(&own, 0.0);
        site.say(&other, 1.0);
    }
    assert_eq!(site.traffic.state().canary, canary);
}

#[test]
fn what_was_answered_before_a_trial_says_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("traffic");
    let canary = CanaryConfig { share: 0.5, pairs: 40 };
    let gate = GateConfig { margin: 0.3, guard_margin: 0.3, ..config().gate };
    let mut site = Site::open(&folder, TrafficConfig { canary, gate, ..config() });
    for n in 0..100 {
        site.ask(&format!("before-{n}"), "lovelace");
    }
    for hour in 0..12 {
        site.hour(&format!("hour-{hour}"), 64);
        site.learner.turn().unwrap();
        if site.traffic.state().canary.is_some() {
            break;
        }
    }
    let canary = site.traffic.state().canary.unwrap();
    let mut own = 0;
    for n in 0.. {
        let id = format!("trial-{n}");
        if site.traffic.choose(&id).version == canary {
            site.ask(&id, "lovelace");
            site.say(&id, 0.0);
            own += 1;
        }
        if own == 100 {
            break;
        }
    }
    for n in 0..100 {
        site.say(&format!("before-{n}"), 1.0);
    }
    assert_eq!(site.traffic.state().canary, Some(canary));
}

#[test]
fn a_candidate_that_waits_does_not_keep_a_process_from_ending() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("traffic");
    let site = Site::open(&folder, config());
    let versions = folder.join("versions");
    copy_folder(&versions.join("version-000000"), &versions.join("version-000001"));
    site.traffic.stop();
    site.learner.run();
    assert_eq!(site.traffic.state().decisions, []);
}

#[test]
fn a_candidate_with_nothing_to_show_does_not_serve() {
    let dir = tempfile::tempdir().unwrap();
    let learn = LearnConfig { learning_rate: 1e-9, ..config().learn };
    let gate = GateConfig { tasks: 50, ..config().gate };
    let settings = TrafficConfig { learn, gate, ..config() };
    let mut site = Site::open(&dir.path().join("traffic"), settings);
    site.hour("hour", 64);
    assert!(site.learner.turn().unwrap());
    let state = site.traffic.state();
    assert_eq!(state.gate().last().map(|d| d.verdict), Some(Verdict::Undecided));
    assert_eq!(state.present, 0);
}

#[test]
fn a_gate_draws_as_a_policy_is_trained() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    let tokenizer = Some(world.model.tokenizer.clone());
    let decoder = world.model.decoder.clone();
    let service =
        SamplingService::start(decoder, tokenizer, SamplingServiceConfig::default()).unwrap();
    let sampling = SamplingParams { temperature: 0.5, ..held_out().sampling };
    let held_out = HeldOut { sampling, ..held_out() };
    let started = Traffic::start(world.model, service.client(), held_out, config(), dir.path());
    let error = started.err().unwrap().to_string();
    assert!(error.contains("held_out.sampling.temperature"), "{error}");
}

const FINE: GateOutcome =
    GateOutcome { right: Some(true), short: true, readable: true, willing: true };
const WRONG: GateOutcome = GateOutcome { right: Some(false), ..FINE };

/// The verdict after so many pairs, of which every `every`-th is as given.
fn verdict(pairs: usize, every: usize, odd: (GateOutcome, GateOutcome)) -> Option<Verdict> {
    let mut test = GateTest::new(&GateConfig::default(), ["a", "b"]).unwrap();
    for pair in 0..pairs {
        let domain = if pair % 2 == 0 { "a" } else { "b" };
        let (candidate, present) = if pair % every == 0 { odd } else { (FINE, FINE) };
        test.observe(domain, &[candidate], &[present]).unwrap();
    }
    test.verdict()
}

#[test]
fn the_gate_wants_better_somewhere_and_worse_nowhere() {
    assert_eq!(verdict(400, 5, (FINE, WRONG)), Some(Verdict::Accepted));
    // The same is not better.
    assert_eq!(verdict(400, 1000, (FINE, FINE)), None);
    assert_eq!(verdict(400, 5, (WRONG, FINE)), Some(Verdict::Refused));
    // What is right more often and breaks its calls, refuses, or grows long.
    for broken in [
        GateOutcome { readable: false, ..FINE },
        GateOutcome { willing: false, ..FINE },
        GateOutcome { short: false, ..FINE },
    ] {
        assert_eq!(verdict(400, 5, (broken, WRONG)), Some(Verdict::Refused));
    }
    assert!(
        GateTest::new(&GateConfig::default(), ["a"])
            .unwrap()
            .observe("b", &[FINE], &[FINE])
            .is_err()
    );
    assert!(
        GateTest::new(&GateConfig::default(), ["a"]).unwrap().observe("a", &[], &[FINE]).is_err()
    );
    let config = GateConfig { error_rate: 0.0, ..GateConfig::default() };
    let error = GateTest::new(&config, ["a"]).unwrap_err().to_string();
    assert!(error.contains("gate.error_rate"), "{error}");
}

/// A judge that fails at random makes nobody worse; answers that break it make nobody better.
#[test]
fn answers_without_a_verdict_are_no_evidence_of_being_worse() {
    const FAILED: GateOutcome = GateOutcome { right: None, ..FINE };
    let mut test = GateTest::new(&GateConfig::default(), ["a"]).unwrap();
    for task in 0..400 {
        let right = if task % 2 == 0 { FINE } else { WRONG };
        let mut own = [right; 4];
        if task % 3 == 0 {
            own[task % 4] = FAILED;
        }
        test.observe("a", &own, &[right; 4]).unwrap();
    }
    assert_ne!(test.verdict(), Some(Verdict::Refused), "{}", test.reason());
    let compared = &test.compared()["a"];
    assert!(compared.candidate < compared.present && compared.worse > 0.9, "{compared:?}");

    let mut test = GateTest::new(&GateConfig::default(), ["a"]).unwrap();
    (0..400).for_each(|_| test.observe("a", &[FAILED; 4], &[WRONG; 4]).unwrap());
    assert_eq!(test.verdict(), None);
    // What fails for the present policy says nothing at all.
    test.observe("a", &[FINE; 4], &[FAILED; 4]).unwrap();
    assert_eq!(test.pairs(), 400);
    assert!(test.observe("a", &[FINE; 4], &[FINE; 3]).is_err());
}

#[test]
fn who_is_right_more_often_nowhere_is_not_asked_to_the_end() {
    let config = GateConfig { tasks: 400, ..GateConfig::default() };
    // Right alone at some pairs, and wrong alone at as many or more.
    let futile = |own: usize, other: usize| {
        let mut test = GateTest::new(&config, ["a", "b"]).unwrap();
        (1..=400).find(|pair| {
            let domain = if pair % 2 == 0 { "a" } else { "b" };
            let outcome = match pair % 20 {
                n if n < own => (FINE, WRONG),
                n if n < own + other => (WRONG, FINE),
                _ => (FINE, FINE),
            };
            test.observe(domain, &[outcome.0], &[outcome.1]).unwrap();
            test.is_futile()
        })
    };
    assert_eq!(futile(2, 2), Some(200));
    assert_eq!(futile(4, 2), None);
    // In one domain it leads.
    assert_eq!(futile(1, 1), None);
}

#[test]
fn what_was_not_asked_is_not_shown() {
    let mut test = GateTest::new(&GateConfig::default(), ["a", "b"]).unwrap();
    for pair in 0..400 {
        test.observe("a", &[FINE], &[if pair % 5 == 0 { WRONG } else { FINE }]).unwrap();
    }
    for _ in 0..3 {
        test.observe("b", &[FINE], &[FINE]).unwrap();
    }
    assert_eq!(test.verdict(), None);
}

#[test]
fn better_in_one_domain_does_not_pay_for_worse_in_another() {
    let mut test = GateTest::new(&GateConfig::default(), ["a", "b"]).unwrap();
    for pair in 0..400 {
        let odd = pair % 5 == 0;
        test.observe("a", &[FINE], &[if odd { WRONG } else { FINE }]).unwrap();
        test.observe("b", &[if pair % 9 == 0 { WRONG } else { FINE }], &[FINE]).unwrap();
    }
    assert_eq!(test.verdict(), Some(Verdict::Refused));
    assert!(test.reason().starts_with("b: "), "{}", test.reason());
}

const KILLED: &str = "POSTTRAIN_TRAFFIC_FOLDER";
const KILLS: &str = "POSTTRAIN_TRAFFIC_KILLS";

#[test]
#[ignore = "it is the process that the test below kills"]
fn served_child() {
    use std::io::Write;
    let Ok(folder) = std::env::var(KILLED) else { return };
    let folder = Path::new(&folder);
    let gate =
        GateConfig { tasks: 100, samples: 1, margin: 0.3, guard_margin: 0.3, ..config().gate };
    let mut site = Site::open(&folder.join("traffic"), TrafficConfig { gate, ..config() });
    let mut acknowledged = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("acknowledged"))
        .unwrap();
    let learner = site.learner;
    std::thread::spawn(move || learner.run());
    let (_, learner) = {
        let spare = tempfile::tempdir().unwrap();
        let world = World::new();
        let client = site.service.client();
        Traffic::start(world.model, client, held_out(), config(), &spare.path().join("spare"))
            .unwrap()
    };
    site.learner = learner;
    let process = std::process::id();
    for n in 0.. {
        let id = format!("{process}-{n}");
        let right = site.ask(&id, "lovelace");
        site.say(&id, f64::from(u8::from(right)));
        // In one write: a kill between two would leave half a line before the next process's.
        let line = format!("{id} {}\n", site.traffic.state().present);
        acknowledged.write_all(line.as_bytes()).unwrap();
    }
}

#[test]
#[cfg(unix)]
fn killed_at_any_moment_it_loses_no_feedback_and_serves_nothing_that_did_not_pass() {
    let kills = std::env::var(KILLS).ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let dir = tempfile::tempdir().unwrap();
    let mut seed = 5u64;
    for _ in 0..kills {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "served_child", "--ignored"])
            .env(KILLED, dir.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wait = 1.0 + 3.0 * (seed >> 33) as f64 / (1u64 << 31) as f64;
        std::thread::sleep(std::time::Duration::from_secs_f64(wait));
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    let folder = dir.path().join("traffic");
    let mut said = std::collections::HashSet::new();
    for file in std::fs::read_dir(folder.join("log")).unwrap() {
        for line in read_log::<TrafficLine>(&file.unwrap().path()).unwrap() {
            if let TrafficLine::Feedback(feedback) = line {
                said.insert(feedback.id);
            }
        }
    }
    let passed = passed(&folder);
    let acknowledged = std::fs::read_to_string(dir.path().join("acknowledged")).unwrap();
    let mut n = 0;
    for line in acknowledged.lines() {
        let Some((id, version)) = line.split_once(' ') else { continue };
        // The last line of a process may be cut.
        let Ok(version) = version.parse::<u64>() else { continue };
        assert!(said.contains(id), "{id} was acknowledged");
        assert!(passed.contains(&version), "version {version} served, {passed:?} had passed");
        n += 1;
    }
    println!("{kills} kills, {n} acknowledged, versions that passed {passed:?}");
    assert!(n > 0);
}
