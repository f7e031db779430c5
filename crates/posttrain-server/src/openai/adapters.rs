//! The models that can be asked for: the base, adapters, checkpoints, a run's.

use crate::app::App;
use crate::keys::Owner;
use crate::learn::Asked;
use crate::refusal::Refusal;
use crate::request::Json;
use crate::routed::{ROUTED, Route};
use crate::tinker::{Json200, load_adapter, policy_of_path};
use axum::extract::{Path, State};
use posttrain_rollout::PolicySnapshot;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// Who answers a request.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The name that was asked for.
    pub name: String,
    /// Who asked, among those that share the rows.
    pub client: u64,
    /// The adapter; `None` is the base.
    pub policy: Option<PolicySnapshot>,
    /// What the router decided, where the routed model was asked.
    pub route: Option<Route>,
    /// Whether it is a model of the experiment that is served.
    pub of_run: bool,
    /// What the policy that learns from what it serves was asked, where it was.
    pub asked: Option<Asked>,
}

/// Finds who answers to a name; `question` is what a router decides by, `rest` what a client says
/// beside it.
pub(crate) async fn target(
    app: &Arc<App>,
    owner: &Owner,
    (name, rest): (&str, &Map<String, Value>),
    question: &str,
) -> Result<Target, Refusal> {
    let name_of = name.to_owned();
    let client = owner.client("");
    let target =
        |policy, route| Target { name: name_of, client, policy, route, of_run: false, asked: None };
    if let Some(learning) = app.learning.as_ref().filter(|own| own.traffic.name() == name) {
        let asked = Asked::of(&learning.traffic, owner, rest)?;
        let policy = Some(asked.chosen.policy.clone());
        return Ok(Target { asked: Some(asked), ..target(policy, None) });
    }
    if name == app.config.name {
        return Ok(target(None, None));
    }
    if name.starts_with("tinker://") {
        return Ok(target(Some(policy_of_path(app, owner, name).await?), None));
    }
    if let Some(policy) = app.registry().adapters.get(&(owner.clone(), name.to_owned())) {
        return Ok(target(Some(policy.clone()), None));
    }
    if let Some(routed) = &app.routed {
        if name == ROUTED {
            let route = routed.route(question.to_owned()).await?;
            let policy = Some(route.policy.clone());
            return Ok(Target { of_run: true, ..target(policy, Some(route)) });
        }
        if let Some((_, policy)) = routed.models().find(|(own, _)| own == name) {
            return Ok(Target { of_run: true, ..target(Some(policy.clone()), None) });
        }
    }
    let known = names(app, owner).into_iter().take(20).collect::<Vec<_>>().join(", ");
    Err(Refusal::not_found(format!("`model`: there is no {name:?}; there are: {known}")))
}

/// The names that an owner may ask for.
fn names(app: &App, owner: &Owner) -> Vec<String> {
    let mut names = vec![app.config.name.clone()];
    names.extend(app.learning.as_ref().map(|learning| learning.traffic.name().to_owned()));
    if let Some(routed) = &app.routed {
        names.push(ROUTED.into());
        names.extend(routed.models().map(|(name, _)| name.clone()));
    }
    let registry = app.registry();
    let adapters = registry.adapters.keys().filter(|(whose, _)| whose == owner);
    names.extend(adapters.map(|(_, name)| name.clone()));
    drop(registry);

    for run in app.checkpoints.runs(owner) {
        let samplers = run.checkpoints.values().filter(|record| {
            record.path.kind == crate::checkpoints::CheckpointKind::SamplerWeights
        });
        names.extend(samplers.map(|record| record.path.to_string()));
    }
    names
}

fn entry(app: &App, name: &str) -> Value {
    let base = (name != app.config.name).then_some(&app.config.name);
    json!({
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "posttrain",
        "root": name,
        "parent": base,
        "max_model_len": app.context(),
    })
}

pub(crate) async fn models(State(app): State<Arc<App>>, owner: Owner) -> Json200 {
    let data: Vec<Value> = names(&app, &owner).iter().map(|name| entry(&app, name)).collect();
    Json200(json!({ "object": "list", "data": data }))
}

pub(crate) async fn model(
    State(app): State<Arc<App>>,
    owner: Owner,
    Path(name): Path<String>,
) -> Result<Json200, Refusal> {
    let known = names(&app, &owner);
    let found =
        known.iter().find(|own| own.trim_start_matches('/') == name.trim_start_matches('/'));
    let found = found.ok_or_else(|| Refusal::not_found(format!("there is no model {name:?}")))?;
    Ok(Json200(entry(&app, found)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Load {
    lora_name: String,
    /// A PEFT folder on this machine, or a checkpoint's `tinker://` path.
    lora_path: String,
    #[serde(default)]
    load_inplace: bool,
}

/// Loads an adapter by a name, as vLLM does.
pub(crate) async fn load(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<Load>,
) -> Result<String, Refusal> {
    let name = request.lora_name;
    if name.is_empty() || name.len() > 200 {
        return Err(Refusal::field(
            "lora_name",
            "1 to 200 characters",
            format!("{} of them", name.len()),
        ));
    }
    let most = app.config.limits.models;
    {
        let registry = app.registry();
        let own = registry.adapters.keys().filter(|(whose, _)| *whose == owner);
        let is_there = registry.adapters.contains_key(&(owner.clone(), name.clone()));
        if is_there && !request.load_inplace {
            return Err(Refusal::invalid(format!("an adapter {name:?} is loaded already")));
        }
        if !is_there && own.count() >= most {
            return Err(Refusal::invalid(format!(
                "{most} adapters are loaded, as many as one key may: unload some"
            )));
        }
    }
    let learns = app.learning.as_ref().is_some_and(|learning| learning.traffic.name() == name);
    let own = name == ROUTED || name == app.config.name || learns;
    let reserved = own || name.starts_with("tinker://");
    if reserved {
        return Err(Refusal::field("lora_name", "a name of its own", format!("{name:?}")));
    }

    let policy = if request.lora_path.starts_with("tinker://") {
        policy_of_path(&app, &owner, &request.lora_path).await?
    } else {
        // A key is no right to read this machine's files.
        if app.config.keys.is_some() {
            return Err(Refusal::field(
                "lora_path",
                "a tinker:// path, on a server with keys",
                "a folder",
            ));
        }
        let folder = PathBuf::from(&request.lora_path);
        let own = app.clone();
        let loaded = tokio::task::spawn_blocking(move || load_adapter(&own, &folder)).await;
        loaded.map_err(|error| Refusal::server(&error))??
    };
    app.registry().adapters.insert((owner, name.clone()), policy);
    Ok(format!("Success: LoRA adapter '{name}' added successfully."))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unload {
    lora_name: String,
    #[serde(default, rename = "lora_int_id")]
    _number: Option<i64>,
}

pub(crate) async fn unload(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<Unload>,
) -> Result<String, Refusal> {
    let name = request.lora_name;
    match app.registry().adapters.remove(&(owner, name.clone())) {
        Some(_) => Ok(format!("Success: LoRA adapter '{name}' removed successfully.")),
        None => Err(Refusal::not_found(format!("no adapter {name:?} is loaded"))),
    }
}
