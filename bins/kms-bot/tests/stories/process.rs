//! `kms-bot` as a process of its own, configured for the sandbox.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};

use kms_sandbox::Stage;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The program with an argument.
pub(crate) fn command(stage: &Stage, argument: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kms-bot"));
    configure(command.arg(argument), stage);
    command
}

/// Configures a bot by its environment.
pub(crate) fn configure(command: &mut Command, stage: &Stage) {
    let settings = stage.bot_settings().unwrap();
    command
        .env("KMS_BOT__TELEGRAM__TOKEN", settings.telegram.token.expose())
        .env("KMS_BOT__TELEGRAM__API_URL", settings.telegram.api_url.unwrap().as_str())
        .env("KMS_BOT__SERVER__URL", settings.server.url.as_str())
        .env("KMS_BOT__SERVER__TOKEN", settings.server.token.expose())
        .env("KMS_BOT__SERVER__CA", settings.server.ca.unwrap())
        .env("KMS_BOT__OPS__LISTEN", "127.0.0.1:0")
        .env("RUST_LOG", "trace")
        .current_dir(stage.directory());
}

/// A running bot whose log the test reads.
pub(crate) struct BotProcess {
    child: Child,
    log: PathBuf,
}

impl BotProcess {
    pub(crate) fn start(stage: &Stage) -> Self {
        Self::start_at(stage, &stage.url())
    }

    /// The server has this URL.
    pub(crate) fn start_at(stage: &Stage, server: &str) -> Self {
        // A pipe without a reader would fill up and block the bot.
        let log = stage.directory().join("bot.log");
        let file = File::create(&log).unwrap();
        let mut command = command(stage, "serve");
        command.env("KMS_BOT__SERVER__URL", server);
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), log }
    }

    /// Kills the bot: it stops wherever it is.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops the bot with SIGTERM, as a container runtime does, and returns its log.
    pub(crate) fn terminate(mut self) -> String {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(self.child.wait().unwrap().success(), "SIGTERM is a clean stop");
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for BotProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A proxy in front of the server that makes it hang: while it is frozen, connections are accepted
/// and stay open, and nothing passes.
pub(crate) struct Proxy {
    port: u16,
    frozen: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn start(stage: &Stage) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = stage.url().replace("https://localhost", "127.0.0.1");
        let (frozen, is_frozen) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server.clone(), is_frozen.clone()));
            }
        });
        Self { port, frozen }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }
}

async fn carry(client: TcpStream, server: String, is_frozen: watch::Receiver<bool>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let there = pass(from_client, to_server, is_frozen.clone());
    tokio::join!(there, pass(from_server, to_client, is_frozen));
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut is_frozen: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 16_384];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        // The proxy may be gone at the end of a story.
        let _ = is_frozen.wait_for(|frozen| !frozen).await.is_ok();
        if to.write_all(&bytes[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
