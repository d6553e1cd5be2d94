//! TCP addresses that stay while what is behind them changes, as those of a load balancer, of a
//! database that fails over, and of a provider.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How often the balancer asks each server whether it is ready.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// An address that leads to others, in turn.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    port: u16,
    ports: Arc<Mutex<Vec<u16>>>,
    /// Changes when all connections end.
    cuts: Arc<watch::Sender<u64>>,
}

impl Door {
    /// Opens one that leads to these ports of 127.0.0.1.
    pub(crate) async fn to(ports: &[u16]) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let door = Self {
            port,
            ports: Arc::new(Mutex::new(ports.to_vec())),
            cuts: Arc::new(watch::Sender::new(0)),
        };
        let shared = door.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(shared.clone().carry(client));
            }
        });
        Ok(door)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Leads new connections to these ports.
    pub(crate) fn lead_to(&self, ports: &[u16]) {
        *self.lock() = ports.to_vec();
    }

    /// Ends all connections, and refuses new ones until it leads somewhere again.
    pub(crate) fn cut(&self) {
        self.lead_to(&[]);
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    async fn carry(self, mut client: TcpStream) {
        let mut cuts = self.cuts.subscribe();
        let next = {
            let mut ports = self.lock();
            if ports.is_empty() {
                return;
            }
            ports.rotate_left(1);
            ports.last().copied()
        };
        let Some(port) = next else { return };
        let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => {}
            _ = cuts.changed() => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u16>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A load balancer, which leads to the servers that are ready; if none is, to all of them, as a
/// network load balancer of AWS does.
#[derive(Clone, Debug)]
pub(crate) struct Balancer {
    door: Door,
    /// The ports of each server: its API's, and its operations listener's.
    servers: Arc<Mutex<Vec<(u16, u16)>>>,
}

impl Balancer {
    pub(crate) async fn start() -> io::Result<Self> {
        let balancer = Self { door: Door::to(&[]).await?, servers: Arc::default() };
        let checked = balancer.clone();
        tokio::spawn(async move {
            loop {
                let mut ready = Vec::new();
                let servers = checked.lock().clone();
                for (port, ops_port) in &servers {
                    if is_ready(*ops_port).await {
                        ready.push(*port);
                    }
                }
                if ready.is_empty() {
                    ready.extend(checked.lock().iter().map(|(port, _)| *port));
                }
                checked.door.lead_to(&ready);
                tokio::time::sleep(CHECK_EVERY).await;
            }
        });
        Ok(balancer)
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.door.port())
    }

    pub(crate) fn add(&self, port: u16, ops_port: u16) {
        self.lock().push((port, ops_port));
    }

    pub(crate) fn remove(&self, port: u16) {
        self.lock().retain(|(known, _)| *known != port);
    }

    /// Forgets all servers.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    pub(crate) fn leads_to(&self, port: u16) -> bool {
        self.door.lock().contains(&port)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u16, u16)>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn is_ready(ops_port: u16) -> bool {
    let answer = reqwest::get(format!("http://127.0.0.1:{ops_port}/readyz"));
    let answer = tokio::time::timeout(CHECK_EVERY * 5, answer).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status().is_success()))
}
