//! What a deployment consists of, and how an operator changes each part.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bot_api_sim::{Phone, Sim};
use kms_client::{BearerToken, Client, Trust};
use kms_server_testing::commands::{checks, kms_server, output_text, succeeds};
use kms_server_testing::{ServerProcess, TestEnv};
use kms_testkit::{Mongod, Postgres, Scratch};
use kms_types::TransferId;
use mongodb::bson::{Document, doc};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::aws::{Aws, REPOSITORY, Role};
use crate::door::{Balancer, Door};

/// How long a server still serves after a stop signal: longer than the balancer needs to notice,
/// and than a connection of a client can be idle and be used again.
const DRAIN: Duration = Duration::from_secs(6);
/// How long a step waits for what it expects.
const PATIENCE: Duration = Duration::from_secs(60);

/// The collections of the key database that a backup has.
const COLLECTIONS: [&str; 4] = ["wrapped_scks", "audit_checkpoints", "owner", "pause"];
/// The password of PostgreSQL's superuser.
const ADMIN: &str = "the-password-of-postgres";

/// Issues the certificates of the servers and of PostgreSQL.
pub(crate) struct Authority {
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A backup of the key database: its documents, by collection.
pub(crate) type KeysBackup = Vec<(&'static str, Vec<Document>)>;

/// The deployment.
pub(crate) struct World {
    pub(crate) aws: Aws,
    pub(crate) authority: Authority,
    pub(crate) postgres: Postgres,
    /// Has every commit before it is acknowledged.
    pub(crate) standby: Option<Postgres>,
    pub(crate) mongod: Mongod,
    pub(crate) env: TestEnv,
    /// Where PostgreSQL is, whichever server it is.
    pub(crate) database: Door,
    /// The port of the chain's node, which all endpoints lead to.
    pub(crate) anvil: u16,
    pub(crate) providers: [Door; 3],
    pub(crate) balancer: Balancer,
    pub(crate) servers: Vec<ServerProcess>,
    pub(crate) bot: Option<Bot>,
    pub(crate) ann: Phone,
    pub(crate) client: Client,
    /// The payments from Ann to Bob that are in blocks and in the list.
    pub(crate) payments: Vec<TransferId>,
    /// How many a restore has removed from the list.
    pub(crate) payments_lost: usize,
    /// The users whose wallets a restore has lost.
    pub(crate) lost: BTreeSet<i64>,
    sim: Sim,
    token: String,
    /// The name of the accounts' database.
    name: String,
}

/// A running `kms-bot`, killed when it is dropped.
pub(crate) struct Bot(Child);

impl Authority {
    fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        // Distinct from the subject of what it issues, which would look self-signed.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// A new certificate for these names, and its private key.
    pub(crate) fn issue(&self, names: &[&str]) -> anyhow::Result<(String, String)> {
        let key = KeyPair::generate()?;
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

impl World {
    /// Starts everything but the servers and the bot.
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let aws = Aws::start()?;
        let authority = Authority::new()?;
        let directory = Scratch::new("rehearsal")?;
        let file = |name: &str| directory.path().join(name);
        write(&file("postgres-postgres"), ADMIN)?;
        for role in ["kms_owner", "kms", "kms_backup"] {
            write(&file(&format!("postgres-{role}")), &format!("the-password-of-{role}"))?;
        }
        write(&file("ca.pem"), &authority.certificate)?;
        let (certificate, key) = authority.issue(&["localhost"])?;
        write(&file("tls.pem"), &certificate)?;
        write(&file("tls-key.pem"), &key)?;
        let postgres = start_postgres(&authority)?;
        let standby = Some(postgres.start_standby()?);
        let mongod = Mongod::start_with_roles()?;
        let database = Door::to(&[postgres.port()]).await?;
        // `use_database` sets the first.
        let (unset, keys) = (String::new(), mongod.serving_url());
        let mut env = TestEnv::on(directory, unset, keys, "kms".to_owned())?;
        let (_, anvil) = env.rpc_urls.rsplit_once(':').context("anvil has a port")?;
        let anvil = anvil.parse()?;
        let node = [anvil];
        let door = || Door::to(&node);
        let providers = [door().await?, door().await?, door().await?];
        env.rpc_urls =
            providers.each_ref().map(|door| format!("http://127.0.0.1:{}", door.port())).join(" ");
        env.ops.drain = Some(DRAIN);
        let balancer = Balancer::start().await?;
        let sim = Sim::start()?;
        let ann = sim.phone(1, "Ann", Some("ann"));
        let (hash, token) = make_token(&env)?;
        env.variables = variables(&env, &aws, &hash)?;
        let trust = Trust::Pinned(authority.certificate.clone());
        let client = Client::new(&balancer.url(), BearerToken::from(token.clone()), trust)?;
        let mut world = Self {
            aws,
            authority,
            postgres,
            standby,
            mongod,
            env,
            database,
            anvil,
            providers,
            balancer,
            servers: Vec::new(),
            bot: None,
            ann,
            client,
            payments: Vec::new(),
            payments_lost: 0,
            lost: BTreeSet::new(),
            sim,
            token,
            name: String::new(),
        };
        world.use_database("kms")?;
        world.make_roles()?;
        Ok(world)
    }

    /// The path of a file of the deployment.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.env.directory.path().join(name)
    }

    /// Replaces a file as `mv` does, so that no reader finds half of it.
    pub(crate) fn replace(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let new = self.file("new");
        write(&new, text)?;
        Ok(fs::rename(new, self.file(name))?)
    }

    /// The password of a role of PostgreSQL, as `roles.sql` sets it.
    pub(crate) fn password(&self, role: &str) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.file(&format!("postgres-{role}")))?)
    }

    /// Configures the database of this name on the current server.
    pub(crate) fn use_database(&mut self, name: &str) -> anyhow::Result<()> {
        let (port, authority) = (self.database.port(), self.file("ca.pem").display().to_string());
        let url = |role| -> anyhow::Result<_> {
            Ok(format!(
                "postgres://{role}:{}@127.0.0.1:{port}/{name}\
                 ?sslmode=verify-full&sslrootcert={authority}",
                self.password(role)?
            ))
        };
        let (serving, owner) = (url("kms")?, url("kms_owner")?);
        self.replace("database-url", &serving)?;
        self.env.owner = Some(owner);
        name.clone_into(&mut self.name);
        Ok(())
    }

    /// Makes the roles of PostgreSQL with the script for it.
    pub(crate) fn make_roles(&self) -> anyhow::Result<()> {
        self.as_role("postgres", &format!("psql -qf {REPOSITORY}/deploy/postgres/roles.sql"))
    }

    /// Runs a command of the manual with the variables that lead PostgreSQL's programs to the
    /// database, as a role of it.
    pub(crate) fn as_role(&self, role: &str, command: &str) -> anyhow::Result<()> {
        let output = Command::new("sh")
            .args(["-ec", command])
            .current_dir(self.env.directory.path())
            .env("SECRETS", self.env.directory.path())
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.database.port().to_string())
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", self.file("ca.pem"))
            .env("PGUSER", role)
            .env("PGPASSWORD", self.password(role)?)
            .output()?;
        ensure!(output.status.success(), "{command}: {}", output_text(&output));
        Ok(())
    }

    /// Runs a command of `kms-server` with the credentials of this role, and returns what it
    /// printed. It must succeed.
    pub(crate) fn run(&self, role: &Role, arguments: &str) -> anyhow::Result<String> {
        let output = self.command(role, arguments).output()?;
        ensure!(output.status.success(), "{arguments}: {}", output_text(&output));
        Ok(output_text(&output))
    }

    /// The same for a command that must report what is wrong, and exit with 1.
    pub(crate) fn finds(&self, role: &Role, arguments: &str, what: &str) -> anyhow::Result<()> {
        let output = self.command(role, arguments).output()?;
        let text = output_text(&output);
        ensure!(output.status.code() == Some(1) && text.contains(what), "{arguments}: {text}");
        Ok(())
    }

    fn command(&self, role: &Role, arguments: &str) -> Command {
        let mut command = kms_server(&self.env, arguments);
        // A user has none.
        command.env("AWS_SESSION_TOKEN", "").envs(role);
        command
    }

    /// Runs `check-config`, all of whose checks must pass.
    pub(crate) fn check_config(&self) -> anyhow::Result<()> {
        let report = self.run(self.aws.server(), "check-config")?;
        ensure!(checks(&report).iter().all(|(_, is_ok)| *is_ok), "{report}");
        Ok(())
    }

    /// Starts a server, and waits until the balancer leads to it.
    pub(crate) async fn start_server(&mut self) -> anyhow::Result<()> {
        let server =
            ServerProcess::try_start(&self.env, None, "info").map_err(anyhow::Error::msg)?;
        self.balancer.add(server.port, server.ops_port);
        let port = server.port;
        self.servers.push(server);
        until("the balancer leads to the server", || self.balancer.leads_to(port)).await
    }

    /// Stops the server that runs longest, as ECS does.
    pub(crate) fn stop_server(&mut self) -> String {
        let server = self.servers.remove(0);
        let port = server.port;
        let log = server.terminate();
        self.balancer.remove(port);
        log
    }

    /// Kills the server that runs longest, as the loss of its machine does, and returns its port.
    pub(crate) fn kill_server(&mut self) -> u16 {
        self.servers.remove(0).port
    }

    /// Starts the bot, which must reach the server.
    pub(crate) fn start_bot(&mut self) -> anyhow::Result<()> {
        let program = ServerProcess::binary().with_file_name("kms-bot");
        let log = fs::File::options().create(true).append(true).open(self.file("bot.log"))?;
        let child = Command::new(program)
            .arg("serve")
            .env("KMS_BOT__TELEGRAM__TOKEN", self.sim.token())
            .env("KMS_BOT__TELEGRAM__API_URL", self.sim.api_url())
            .env("KMS_BOT__SERVER__URL", self.balancer.url())
            .env("KMS_BOT__SERVER__TOKEN", &self.token)
            .env("KMS_BOT__SERVER__CA", &self.authority.certificate)
            .env("KMS_BOT__OPS__LISTEN", "127.0.0.1:0")
            .current_dir(self.env.directory.path())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.bot = Some(Bot(child));
        Ok(())
    }

    /// Ann asks the bot for her balance, and gets it.
    pub(crate) async fn the_bot_answers(&mut self) -> anyhow::Result<()> {
        self.ann.says("/balance");
        self.ann.hears("ETH").await?;
        Ok(())
    }

    /// The Telegram users who have an account.
    pub(crate) fn accounts(&self) -> anyhow::Result<Vec<i64>> {
        let rows = self.postgres.execute(&self.name, "select telegram_id from accounts")?;
        Ok(rows.lines().map(str::parse).collect::<Result<_, _>>()?)
    }

    /// Copies the key database as `mongodump` does, which this machine lacks.
    pub(crate) async fn back_up_keys(&self) -> anyhow::Result<KeysBackup> {
        let keys = mongodb::Client::with_uri_str(self.mongod.url()).await?.database("kms");
        let mut backup = Vec::new();
        for name in COLLECTIONS {
            let mut rows = keys.collection::<Document>(name).find(doc! {}).await?;
            let mut documents = Vec::new();
            while rows.advance().await? {
                documents.push(rows.deserialize_current()?);
            }
            backup.push((name, documents));
        }
        Ok(backup)
    }

    /// Restores it as `mongorestore` does.
    pub(crate) async fn restore_keys(&self, backup: &KeysBackup) -> anyhow::Result<()> {
        let keys = mongodb::Client::with_uri_str(self.mongod.url()).await?.database("kms");
        for (name, documents) in backup.iter().filter(|(_, documents)| !documents.is_empty()) {
            keys.collection::<Document>(name).insert_many(documents).await?;
        }
        Ok(())
    }
}

impl Bot {
    /// Stops it as ECS does.
    pub(crate) fn terminate(mut self) -> anyhow::Result<()> {
        Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status()?;
        ensure!(self.0.wait()?.success(), "SIGTERM ends the bot regularly");
        Ok(())
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is true.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
    let since = Instant::now();
    while !is_so() {
        ensure!(since.elapsed() < PATIENCE, "it did not become true that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

pub(crate) fn start_postgres(authority: &Authority) -> anyhow::Result<Postgres> {
    let (certificate, key) = authority.issue(&["127.0.0.1"])?;
    Ok(Postgres::start_tls(&certificate, &key, Some(ADMIN))?)
}

/// The variables beside those that every test has.
fn variables(env: &TestEnv, aws: &Aws, token_hash: &str) -> anyhow::Result<Vec<(String, String)>> {
    let path = |name: &str| env.directory.path().join(name).display().to_string();
    let tokens = format!(r#"[{{ name = "bot", scopes = ["bot"], hash = "{token_hash}" }}]"#);
    let own = [
        ("DATABASE__URL", String::new()),
        ("DATABASE__URL_FILE", path("database-url")),
        ("TLS__CERTIFICATE", String::new()),
        ("TLS__CERTIFICATE_FILE", path("tls.pem")),
        ("TLS__KEY", String::new()),
        ("TLS__KEY_FILE", path("tls-key.pem")),
        ("TOKENS", tokens),
        ("LIMITS__ONBOARDINGS", "6000/minute".to_owned()),
    ];
    let own = own.map(|(name, value)| (format!("KMS_SERVER__{name}"), value));
    let role = aws.server().iter().map(|(name, value)| (name.clone(), value.clone()));
    Ok(own.into_iter().chain(aws.settings()).chain(role).collect())
}

/// The hash of a new token of the bot, and the token.
fn make_token(env: &TestEnv) -> anyhow::Result<(String, String)> {
    let printed = succeeds(env, "token generate bot-token");
    let is_hash = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let hash = printed.split_whitespace().find(is_hash).context("no hash was printed")?;
    let token = fs::read_to_string(env.directory.path().join("bot-token"))?;
    Ok((hash.to_owned(), token.trim().to_owned()))
}

/// Writes a file that only this user can read.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file =
        fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
