//! `compose.yaml`, read as data: without Docker nothing else shows what it isolates.

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;
use serde_norway::Value;

use crate::REPOSITORY;

/// What a service may use. A setting that is not listed here is an error of the test.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    image: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) command: Option<Value>,
    pub(crate) entrypoint: Option<Value>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    networks: Vec<String>,
    network_mode: Option<String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    profiles: Vec<String>,
    read_only: bool,
    cap_drop: Vec<String>,
    security_opt: Vec<String>,
    tmpfs: Vec<String>,
    ulimits: BTreeMap<String, u32>,
    pids_limit: u32,
    mem_limit: String,
    memswap_limit: String,
    restart: String,
    #[serde(rename = "logging")]
    _logging: Value,
    #[serde(rename = "build")]
    _build: Option<Value>,
    #[serde(rename = "depends_on")]
    _depends_on: Option<Value>,
    #[serde(rename = "healthcheck")]
    _healthcheck: Option<Value>,
    #[serde(rename = "stop_grace_period")]
    _stop_grace_period: Option<String>,
    #[serde(rename = "shm_size")]
    _shm_size: Option<String>,
}

#[derive(Deserialize)]
struct Network {
    #[serde(default)]
    internal: bool,
}

fn file() -> Value {
    let text = fs::read_to_string(format!("{REPOSITORY}/deploy/compose.yaml")).unwrap();
    let mut file: Value = serde_norway::from_str(&text).unwrap();
    // The second time for what was merged.
    file.apply_merge().unwrap();
    file.apply_merge().unwrap();
    file
}

/// The services by their names.
pub(crate) fn services() -> BTreeMap<String, Service> {
    serde_norway::from_value(file().get("services").unwrap().clone()).unwrap()
}

pub(crate) fn check() {
    let services = services();
    let all: Vec<_> = services.keys().map(String::as_str).collect();
    let jobs = ["backup-accounts", "backup-keys", "migrate", "mongodb-roles", "postgres-roles"];
    let served = ["bot", "mongodb", "postgres", "server"];
    let mut known: Vec<_> = jobs.iter().chain(&served).copied().collect();
    known.sort_unstable();
    assert_eq!(all, known);
    for (name, service) in &services {
        check_hardening(name, service);
        // `docker compose up` starts no job.
        let is_job = jobs.contains(&name.as_str());
        assert_eq!(service.profiles, if is_job { vec!["job"] } else { vec![] }, "{name}");
        assert_eq!(service.restart, if is_job { "no" } else { "unless-stopped" }, "{name}");
        check_variables(name, service);
    }
    check_networks(&services);
    check_secrets(&services);
}

fn check_hardening(name: &str, service: &Service) {
    assert!(service.read_only, "{name}");
    assert_eq!(service.cap_drop, ["ALL"], "{name}");
    assert_eq!(service.security_opt, ["no-new-privileges:true"], "{name}");
    assert_eq!(service.tmpfs.first().map(String::as_str), Some("/tmp"), "{name}");
    assert_eq!(service.ulimits.get("core"), Some(&0), "{name}");
    assert!((1..=512).contains(&service.pids_limit), "{name}");
    assert_eq!(service.mem_limit, service.memswap_limit, "{name} would use swap");
    // Our own images have a user.
    let user = if service.image.starts_with("kms-") { "" } else { "999:999" };
    assert_eq!(service.user, user, "{name}");
}

/// The bot and the databases share no network, and nothing listens for other machines.
fn check_networks(services: &BTreeMap<String, Service>) {
    let networks: BTreeMap<String, Option<Network>> =
        serde_norway::from_value(file().get("networks").unwrap().clone()).unwrap();
    let internal = |name: &str| networks[name].as_ref().is_some_and(|network| network.internal);
    assert!(internal("databases") && !internal("api") && networks.len() == 2);
    for (name, service) in services {
        let expected: &[&str] = match name.as_str() {
            "bot" => &["api"],
            "server" => &["databases", "api"],
            "mongodb-roles" => &[],
            _ => &["databases"],
        };
        assert_eq!(service.networks, expected, "{name}");
        let joined = (name == "mongodb-roles").then_some("service:mongodb");
        assert_eq!(service.network_mode.as_deref(), joined, "{name}");
        let ports: &[&str] = if name == "server" { &["127.0.0.1:8443:8443"] } else { &[] };
        assert_eq!(service.ports, ports, "{name}");
    }
}

/// Each container sees its own folder of secrets, and can write to none.
fn check_secrets(services: &BTreeMap<String, Service>) {
    for (name, service) in services {
        let seen: Vec<_> = service
            .volumes
            .iter()
            .filter_map(|volume| volume.strip_prefix("./secrets/"))
            .map(|volume| volume.split(':').collect::<Vec<_>>())
            .collect();
        let folders: &[&str] = match name.as_str() {
            "migrate" => &["server", "migrate"],
            "postgres-roles" | "mongodb-roles" => &["admin"],
            "backup-accounts" | "backup-keys" => &["backup"],
            other => &[other],
        };
        assert_eq!(seen.iter().map(|volume| volume[0]).collect::<Vec<_>>(), folders, "{name}");
        assert!(seen.iter().all(|volume| volume.last() == Some(&"ro")), "{name}");
        let sockets = service.volumes.iter().any(|volume| volume.contains("docker.sock"));
        assert!(!sockets, "{name}");
    }
}

/// Checks that each variable of the server or the bot is in its example file, and is no secret.
fn check_variables(name: &str, service: &Service) {
    let examples = ["server", "bot"].map(|program| {
        fs::read_to_string(format!("{REPOSITORY}/deploy/{program}.env.example")).unwrap()
    });
    for variable in service.environment.keys() {
        let lower = variable.to_lowercase();
        let is_secret = lower.contains("password") && !lower.ends_with("_file");
        assert!(!is_secret, "{name}: {variable}");
        if variable.starts_with("KMS_") {
            let setting = variable.strip_suffix("_FILE").unwrap_or(variable);
            let is_known = examples.iter().any(|example| example.contains(&format!("{setting}=")));
            assert!(is_known, "{name}: {variable}");
        }
    }
}
